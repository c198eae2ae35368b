"""Assignment of proposals to ground-truth boxes in the graph; ``msg_ms.boxes.anchor_assigner`` assigns anchors.

An assignment is -1 (ignored), 0 (background) or k + 1 (ground-truth box k), as in mmdetection's ``MaxIoUAssigner``.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, ops

from .iou import iou_matrix


def assign_rois(
    boxes: Tensor, valid: Tensor, gt: Tensor, gt_valid: Tensor, positive: float, negative: float
) -> tuple[Tensor, Tensor]:
    """Assign proposals to ground-truth boxes in the graph, without low-quality matches.

    Args:
        boxes: (B, P, 4).
        valid: (B, P), bool; the others are ignored.
        gt: (B, G, 4), padded.
        gt_valid: (B, G), bool.
        positive: least IoU of a positive.
        negative: IoU below which a box is background.

    Returns:
        The assignment (B, P), int32, and the largest IoU (B, P), 0 without ground truth.
    """
    iou = iou_matrix(boxes, gt)
    # Padding is below every IoU, also below 0, so that the index of the largest is a true box where there is one.
    iou = ops.select(ops.logical_and(gt_valid.expand_dims(1), iou >= -1.0), iou, ops.zeros_like(iou) - 1.0)
    best_gt = ops.argmax(iou, -1).astype(ms.int32)
    best = ops.maximum(ops.amax(iou, -1), ops.zeros_like(iou[..., 0]))
    zero = ops.zeros_like(best_gt)
    assigned = ops.select(best < negative, zero, zero - 1)
    assigned = ops.select(best >= positive, best_gt + 1, assigned)
    return ops.select(valid, assigned, zero - 1), best
