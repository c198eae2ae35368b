"""Boxes in graphs: deltas, IoU, GIoU, the box losses and the choice of FPN levels.

Gradients at ties follow PyTorch: of two equal values in a maximum or minimum each receives half, and a clamped value at
its bound receives all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops
from mindspore.ops import constexpr

from ...boxes.anchor_assigner import EPS

MAX_LOG_RATIO = abs(math.log(16 / 1000))  # wh_ratio_clip of mmdetection's coder


@constexpr
def _repeated(values: tuple[float, ...], times: int) -> Tensor:
    return Tensor(np.tile(np.array(values, np.float32), times))


def _larger(a: Tensor, b: Tensor) -> Tensor:
    weight = (a > b).astype(ms.float32) + 0.5 * (a == b).astype(ms.float32)
    weight = ops.stop_gradient(weight)
    return weight * a + (1.0 - weight) * b


def _smaller(a: Tensor, b: Tensor) -> Tensor:
    return -_larger(-a, -b)


def _clamp(x: Tensor, low: float, high: float) -> Tensor:
    outside = ops.logical_or(x < low, x > high)
    return ops.select(outside, ops.stop_gradient(ops.clamp(x, low, high)), x)


def _non_negative(x: Tensor) -> Tensor:
    return x * ops.stop_gradient((x >= 0).astype(ms.float32))


def encode_boxes(boxes: Tensor, gt: Tensor, stds: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """Return the deltas that move boxes to ground-truth boxes (mmdetection's ``bbox2delta`` with means 0).

    Args:
        boxes: (..., 4).
        gt: (..., 4).
        stds: divisors of the four deltas.

    Returns:
        (..., 4): dx, dy, dw, dh.
    """
    size, gt_size = boxes[..., 2:] - boxes[..., :2], gt[..., 2:] - gt[..., :2]
    shift = ((gt[..., :2] + gt[..., 2:]) * 0.5 - (boxes[..., :2] + boxes[..., 2:]) * 0.5) / size
    return ops.cat((shift, ops.log(gt_size / size)), -1) / _repeated(tuple(stds), 1)


def decode_boxes(
    boxes: Tensor,
    deltas: Tensor,
    stds: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    limits: Tensor | None = None,
) -> Tensor:
    """Move boxes by deltas (mmdetection's ``delta2bbox`` with means 0 and ``wh_ratio_clip`` 16 / 1000).

    Args:
        boxes: (..., 4).
        deltas: (..., 4 * K), one or more deltas for each box.
        stds: factors of the four deltas.
        limits: height and width of the image, (..., 2) with the axes of ``boxes``, to clip the result to; None for no
            clipping, as in the box loss.

    Returns:
        (..., 4 * K).
    """
    shape, count = deltas.shape, deltas.shape[-1] // 4
    deltas = (deltas * _repeated(tuple(stds), count)).reshape(*shape[:-1], count, 4)
    boxes = boxes.expand_dims(-2)
    size, centre = boxes[..., 2:] - boxes[..., :2], (boxes[..., :2] + boxes[..., 2:]) * 0.5
    new_size = size * ops.exp(_clamp(deltas[..., 2:], -MAX_LOG_RATIO, MAX_LOG_RATIO))
    new_centre = centre + size * deltas[..., :2]
    moved = ops.cat((new_centre - new_size * 0.5, new_centre + new_size * 0.5), -1)
    if limits is not None:
        moved = clip_boxes(moved, limits.expand_dims(-2))
    return moved.reshape(shape)


def clip_boxes(boxes: Tensor, limits: Tensor) -> Tensor:
    """Clip boxes to the image.

    Args:
        boxes: (..., 4).
        limits: (..., 2), height and width; broadcast to the boxes.

    Returns:
        (..., 4).
    """
    height, width = limits[..., :1], limits[..., 1:]
    bounds = ops.cat((width, height, width, height), -1)
    return ops.minimum(ops.maximum(boxes, ops.zeros_like(boxes)), bounds.astype(boxes.dtype))


def _areas(boxes: Tensor) -> Tensor:
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
    union = _areas(first).expand_dims(-1) + _areas(second).expand_dims(-2) - overlap
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
    floor = ops.zeros_like(_areas(boxes)) + eps
    size = _non_negative(_smaller(boxes[..., 2:], targets[..., 2:]) - _larger(boxes[..., :2], targets[..., :2]))
    overlap = size[..., 0] * size[..., 1]
    union = _larger(_areas(boxes) + _areas(targets) - overlap, floor)
    around = _non_negative(_larger(boxes[..., 2:], targets[..., 2:]) - _smaller(boxes[..., :2], targets[..., :2]))
    enclosing = _larger(around[..., 0] * around[..., 1], floor)
    return 1.0 - (overlap / union - (enclosing - union) / enclosing)


def smooth_l1(x: Tensor, targets: Tensor, beta: float = 1 / 9) -> Tensor:
    """Return the smooth L1 loss of each element: quadratic below ``beta``, linear above.

    Args:
        x: predictions of any shape.
        targets: of the same shape.
        beta: where the two parts meet.

    Returns:
        The loss of each element.
    """
    difference = ops.abs(x - targets)
    return ops.select(difference < beta, 0.5 * difference * difference / beta, difference - 0.5 * beta)


def region_levels(boxes: Tensor, levels: int = 4, finest: float = 56.0) -> Tensor:
    """Return the FPN level of each region: floor(log2(sqrt(area) / finest + 1e-6)), from 0 to levels - 1.

    Args:
        boxes: (..., 4).
        levels: number of levels.
        finest: side in pixels from which a region belongs to the finest level; twice it is level 1.

    Returns:
        (...), int32.
    """
    scale = ops.sqrt(_areas(boxes)) / finest + 1e-6
    level = ops.zeros_like(scale).astype(ms.int32)
    for i in range(1, levels):
        level = level + (scale >= 2.0**i).astype(ms.int32)
    return level
