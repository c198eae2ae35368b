"""Splitting a tensor along an axis."""

from __future__ import annotations

from mindspore import Tensor
from mindspore.ops.auto_generate import SplitWithSize


def split(x: Tensor, sizes: tuple[int, ...], axis: int) -> tuple[Tensor, ...]:
    """Split a tensor in one operator, whose gradient is one concatenation.

    ``mindspore.ops.split`` with several sizes is a strided slice for each part. ``mindspore.mint.split`` is a view,
    which the GPU does not have.

    Args:
        x: tensor of any shape.
        sizes: size of every part.
        axis: the axis to split.

    Returns:
        The parts.
    """
    return SplitWithSize()(x, sizes, axis)
