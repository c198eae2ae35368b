"""Zeros around maps.

``ops.pad`` computes wrong gradients on CPU (MindSpore 2.10.0): the memory that it does not write keeps old values.
"""

from __future__ import annotations

from mindspore import Tensor, ops


def pad_axis(x: Tensor, axis: int, before: int, after: int) -> Tensor:
    """Add zeros at both ends of an axis.

    Args:
        x: a tensor of any shape.
        axis: the axis, from 0.
        before: zeros before it.
        after: zeros after it.

    Returns:
        A tensor with ``before + after`` more entries along the axis.
    """
    parts: tuple[Tensor, ...] = (x,)
    if before > 0:
        parts = (ops.zeros((*x.shape[:axis], before, *x.shape[axis + 1 :]), x.dtype), *parts)
    if after > 0:
        parts = (*parts, ops.zeros((*x.shape[:axis], after, *x.shape[axis + 1 :]), x.dtype))
    return ops.cat(parts, axis) if len(parts) > 1 else x
