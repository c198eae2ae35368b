"""Adapt weights to a model with other classes, windows or image size, for fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Mapping

import cv2
import numpy as np

from .dtypes import upcast_bfloat16
from .types import Arrays, ConversionError

BIAS_TABLE, POSITIONS, HEAD = "relative_position_bias_table", "absolute_pos_embed", "head"
FIRST_LAYER = ["patch_embed", "proj", "weight"]


# Only the end of a name is compared: in a larger model the names have a prefix.
def is_head(name: str) -> bool:
    """Return whether a parameter belongs to the classification head."""
    return name.split(".")[-2:] in ([HEAD, "weight"], [HEAD, "bias"])


def is_bias_table(name: str) -> bool:
    """Return whether a parameter is a table of relative position biases."""
    return name.split(".")[-1] == BIAS_TABLE


def is_position_embedding(name: str) -> bool:
    """Return whether a parameter is the absolute position embedding."""
    return name.split(".")[-1] == POSITIONS


def is_first_layer(name: str) -> bool:
    """Return whether a parameter is the weight of the first layer, whose second axis is the image's channels."""
    return name.split(".")[-3:] == FIRST_LAYER


def is_adaptable(name: str) -> bool:
    """Return whether a parameter's shape depends only on the classes, the channels, the window or the image size."""
    return is_head(name) or is_first_layer(name) or is_bias_table(name) or is_position_embedding(name)


def adapt_weights(
    arrays: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]], new_head: bool = True
) -> tuple[Arrays, list[str]]:
    """Adapt weights to a model with other classes, channels, windows or image size.

    Tables of relative position biases, of shape ((2w-1)**2, heads), and position embeddings, of shape (1, H*W, C) with
    H = W, are resampled bicubically, as Swin Transformer does for fine-tuning. The first layer is adapted as by timm:
    for one channel its weights are summed over the channels, for others repeated and rescaled. A classification head
    for another number of classes is left out, so that the model keeps its initial one. Other differences remain for the
    caller to report.

    Args:
        arrays: Weights by name. In a larger model, all names may have a prefix.
        expected: Shapes of the model's parameters by name.
        new_head: Whether to leave out a head for another number of classes.

    Returns:
        The adapted weights by name, and a line for each change.

    Raises:
        ConversionError: If an array to resample is not a square grid.
    """
    result, lines = {}, []
    resampled = {}
    for name, value in arrays.items():
        shape = expected.get(name)
        if new_head and is_head(name) and value.ndim > 0 and (shape is None or value.shape[0] != shape[0]):
            if name.endswith("weight"):
                lines.append(_head_line(value.shape[0], None if shape is None else shape[0]))
            continue
        if shape is not None and value.shape != shape:
            if is_bias_table(name) and value.shape[1:] == shape[1:]:
                value, resampled[BIAS_TABLE] = _resample(value, shape[0], name), (value.shape[0], shape[0])
            elif is_position_embedding(name) and value.shape[::2] == shape[::2]:
                value, resampled[POSITIONS] = _resample(value[0], shape[1], name)[None], (value.shape[1], shape[1])
            elif is_first_layer(name) and _without_channels(value.shape) == _without_channels(shape):
                lines.append(f"first layer adapted from {value.shape[1]} to {shape[1]} channels")
                value = adapt_channels(value, shape[1])
        result[name] = value
    for name, (before, after) in resampled.items():
        lines.append(f"{name} resampled from {before} to {after} positions")
    return result, lines


def _without_channels(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:1], *shape[2:])


def adapt_channels(weight: np.ndarray, channels: int) -> np.ndarray:
    """Return the weight (O, C, k, k) of a convolution for images with other channels, (O, channels, k, k).

    For one channel the weights are summed, so that a grey image has the output of the same image in colour. Otherwise
    they are repeated and rescaled, so that the sum stays the same for equal weights. Source: ``adapt_input_conv`` of
    timm.
    """
    weight = upcast_bfloat16(weight).astype(np.float32)
    if channels == 1:
        return weight.sum(1, keepdims=True)
    own = weight.shape[1]
    return np.tile(weight, (1, -(-channels // own), 1, 1))[:, :channels] * np.float32(own / channels)


def _head_line(classes: int, expected: int | None) -> str:
    if expected is None:
        return f"classification head ignored: {classes} classes in the file, no head in the model"
    return f"classification head re-initialised: {classes} classes in the file, {expected} in the model"


def _resample(rows: np.ndarray, count: int, name: str) -> np.ndarray:
    """Resample a square grid, stored as rows (n*n, channels), to ``count`` = m*m rows."""
    old, new = math.isqrt(len(rows)), math.isqrt(count)
    if old * old != len(rows) or new * new != count:
        raise ConversionError(f"{name}: {len(rows)} and {count} positions are not both square grids")
    grids = upcast_bfloat16(rows).astype(np.float32).reshape(old, old, -1).transpose(2, 0, 1)
    # OpenCV's bicubic kernel is PyTorch's (a = -0.75, half-pixel centres, edges repeated).
    resized = [cv2.resize(np.ascontiguousarray(grid), (new, new), interpolation=cv2.INTER_CUBIC) for grid in grids]
    return np.stack(resized, -1).reshape(count, -1)
