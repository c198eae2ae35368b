"""IoU and GIoU of boxes in graphs.

Of two equal values in a maximum or minimum each receives half the gradient, as in PyTorch.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, ops

from ...boxes.anchor_assigner import EPS


def _larger(a: Tensor, b: Tensor) -> Tensor:
    weight = (a > b).astype(ms.float32) + 0.5 * (a == b).astype(ms.float32)
    weight = ops.stop_gradient(weight)
    return weight * a + (1.0 - weight) * b


def _smaller(a: Tensor, b: Tensor) -> Tensor:
    return -_larger(-a, -b)


def _non_negative(x: Tensor) -> Tensor:
    return x * ops.stop_gradient((x >= 0).astype(ms.float32))


def areas(boxes: Tensor) -> Tensor:
    """Return the areas (...) of boxes (..., 4)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def iou_matrix(first: Tensor, second: Tensor) -> Tensor:
    """Return the IoU of every pair, in the order of operations of mmdetection (no + 1 pixel).

    Args:
        first: (..., N, 4).
        second: (..., M, 4).

    Returns:
        (..., N, M).
    """
    a, b = first.expand_dims(-2), second.expand_dims(-3)
    size = ops.minimum(a[..., 2:], b[..., 2:]) - ops.maximum(a[..., :2], b[..., :2])
    size = ops.maximum(size, ops.zeros_like(size))
    overlap = size[..., 0] * size[..., 1]
    union = areas(first).expand_dims(-1) + areas(second).expand_dims(-2) - overlap
    return overlap / ops.clamp(union, min=EPS)


def giou_loss(boxes: Tensor, targets: Tensor, eps: float = EPS) -> Tensor:
    """Return 1 - GIoU of pairs of boxes (Rezatofighi et al., 2019).

    Args:
        boxes: (..., 4), receives gradients.
        targets: (..., 4).
        eps: least area of the union and of the enclosing box.

    Returns:
        (...), from 0 to 2.
    """
    floor = ops.zeros_like(areas(boxes)) + eps
    size = _non_negative(_smaller(boxes[..., 2:], targets[..., 2:]) - _larger(boxes[..., :2], targets[..., :2]))
    overlap = size[..., 0] * size[..., 1]
    union = _larger(areas(boxes) + areas(targets) - overlap, floor)
    around = _non_negative(_larger(boxes[..., 2:], targets[..., 2:]) - _smaller(boxes[..., :2], targets[..., :2]))
    enclosing = _larger(around[..., 0] * around[..., 1], floor)
    return 1.0 - (overlap / union - (enclosing - union) / enclosing)
