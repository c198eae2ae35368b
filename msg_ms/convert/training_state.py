"""Entries beside a model's weights in mmdetection's checkpoints."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..checkpoint.types import Arrays
from ..data.pixels.transforms import MEAN, STD

_EMA_PREFIX = "ema_"
_NORMALIZATION = {"data_preprocessor.mean": MEAN, "data_preprocessor.std": STD}


def drop_training_state(state: Mapping[str, np.ndarray]) -> tuple[Arrays, list[str]]:
    """Leave out the second set of weights of mmdetection 2's EMA hooks, and mmdetection 3's normalisation of images.

    Both versions save the averages under the model's own names. The buffers ``ema_backbone_norm0_weight`` (version 2,
    mmdet/core/hook/ema.py) and ``ema_state_dict`` (version 3, mmengine/hooks/ema_hook.py) hold the weights of the last
    step.

    Args:
        state: Arrays by PyTorch's names.

    Returns:
        The model's arrays, and a line for each kind of entry that is left out.
    """
    flat = {f"{_EMA_PREFIX}{name.replace('.', '_')}" for name in state}
    last_step = [name for name in state if name in flat]
    normalization = [name for name in _NORMALIZATION if name in state]
    lines = []
    if last_step:
        lines.append(
            f"dropped    {len(last_step)} ema_ buffers (mmdetection's weights of the last step; "
            "the averages are under the model's names)"
        )
    if normalization:
        lines.append(f"dropped    {len(normalization)} buffers (normalisation of images)")
    for name in normalization:
        expected = 255 * np.array(_NORMALIZATION[name])
        value = np.asarray(state[name], np.float64).reshape(-1)
        if value.shape != expected.shape or not np.allclose(value, expected, rtol=1e-3):
            shown = np.array2string(expected, precision=3, separator=", ")
            lines.append(f"warning    {name} differs from {shown}, which detectors here use; results would differ")
    dropped = {*last_step, *normalization}
    return {name: value for name, value in state.items() if name not in dropped}, lines
