"""The box coder in graphs: deltas between boxes, and boxes clipped to their image.

A value that is clamped at its bound receives the whole gradient, as in PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from mindspore import Tensor, ops
from mindspore.ops import constexpr

MAX_LOG_RATIO = abs(math.log(16 / 1000))  # wh_ratio_clip of mmdetection's coder


@constexpr
def _repeated(values: tuple[float, ...], times: int) -> Tensor:
    return Tensor(np.tile(np.array(values, np.float32), times))


def _clamp(x: Tensor, low: float, high: float) -> Tensor:
    outside = ops.logical_or(x < low, x > high)
    return ops.select(outside, ops.stop_gradient(ops.clamp(x, low, high)), x)


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
