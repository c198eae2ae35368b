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


def clamp_workers(wanted: int) -> int:
    """``wanted`` data workers, but no more than there are cores: MindSpore refuses more."""
    return max(1, min(wanted, os.cpu_count() or 1))
