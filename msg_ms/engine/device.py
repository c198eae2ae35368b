"""The one place that sets MindSpore's device, mode and seeds."""

from __future__ import annotations

import os

import mindspore as ms

from ..errors import UserError


def setup_device(target: str, seed: int) -> str:
    """Graph mode on ``target`` (empty: MindSpore's choice) with all of MindSpore's seeds set; gives the target."""
    try:
        if target:
            ms.set_device(target)
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"device target {target} can't be used on this machine: {reason}") from None
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_seed(seed)
    ms.dataset.config.set_seed(seed)
    return ms.get_context("device_target")


def check_half_precision(level: str, dtype: str) -> None:
    """Raise UserError where the device can't multiply matrices in the precision that ``AMP`` asks for."""
    if level == "O0":
        return
    ones = ms.Tensor([[1.0, 1.0]], getattr(ms, dtype))
    try:
        ms.ops.matmul(ones, ones.T).asnumpy()
    except (RuntimeError, TypeError, ValueError):
        target = ms.get_context("device_target")
        other = "AMP.DTYPE float16, or AMP_OPT_LEVEL O0" if dtype == "bfloat16" else "AMP_OPT_LEVEL O0"
        raise UserError(f"AMP.DTYPE={dtype}: the {target} of this machine has no such products; use {other}") from None


def clamp_workers(wanted: int) -> int:
    """``wanted`` data workers, but no more than there are cores: MindSpore refuses more."""
    return max(1, min(wanted, os.cpu_count() or 1))
