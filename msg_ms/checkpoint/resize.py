"""Fit weights to a model with other classes, windows or image size, for fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Mapping

import cv2
import numpy as np

from .dtypes import wide
from .types import Arrays, ConversionError

BIAS_TABLE, POSITIONS, HEAD = "relative_position_bias_table", "absolute_pos_embed", "head."


def is_adaptable(name: str) -> bool:
    """Whether a parameter's shape depends on nothing but classes, windows and image size."""
    return name.startswith(HEAD) or name.endswith(BIAS_TABLE) or name == POSITIONS


def adapt_weights(
    arrays: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]], new_head: bool = True
) -> tuple[Arrays, list[str]]:
    """The arrays with the shapes of ``expected``, and a line on each thing that was changed.

    Position-bias tables ((2w-1)**2, heads) of another window, and position embeddings (1, H*W, C) of another square
    grid, are resampled bicubically as Swin's fine-tuning does. A head for another number of classes is left out of the
    result, for the model to keep its own, unless ``new_head`` is False. What differs beyond that is for the caller to
    refuse.
    """
    result, lines = {}, []
    resampled = {}
    for name, value in arrays.items():
        shape = expected.get(name)
        if new_head and name.startswith(HEAD) and (shape is None or value.shape[0] != shape[0]):
            if name == f"{HEAD}weight":
                lines.append(
                    f"the head begins anew: {value.shape[0]} classes in the file, {shape[0] if shape else 0} here"
                )
            continue
        if shape is not None and value.shape != shape:
            if name.endswith(BIAS_TABLE) and value.shape[1:] == shape[1:]:
                value, resampled[BIAS_TABLE] = _resample(value, shape[0], name), (value.shape[0], shape[0])
            elif name == POSITIONS and value.shape[2:] == shape[2:]:
                value, resampled[POSITIONS] = _resample(value[0], shape[1], name)[None], (value.shape[1], shape[1])
        result[name] = value
    for name, (before, after) in resampled.items():
        lines.append(f"{name} resampled from {before} to {after} positions")
    return result, lines


def _resample(rows: np.ndarray, count: int, name: str) -> np.ndarray:
    """A square grid's rows (n*n, channels) at ``count`` = m*m places."""
    old, new = math.isqrt(len(rows)), math.isqrt(count)
    if old * old != len(rows) or new * new != count:
        raise ConversionError(f"{name}: {len(rows)} and {count} positions are not both square grids")
    grids = wide(rows).astype(np.float32).reshape(old, old, -1).transpose(2, 0, 1)
    # OpenCV's cubic is PyTorch's (a = -0.75, half-pixel centres, edges repeated).
    resized = [cv2.resize(np.ascontiguousarray(grid), (new, new), interpolation=cv2.INTER_CUBIC) for grid in grids]
    return np.stack(resized, -1).reshape(count, -1)
