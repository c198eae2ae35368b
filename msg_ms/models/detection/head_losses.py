"""The detector's training losses, normalised as in mmdetection."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, ops

from .box_coder import decode_boxes
from .iou import giou_loss
from .roi_head import class_deltas
from .settings import STAGE_STDS


def rpn_losses(
    logits: tuple[Tensor, ...],
    deltas: tuple[Tensor, ...],
    indices: Tensor,
    labels: Tensor,
    weights: Tensor,
    targets: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the objectness and box losses of the region proposal network.

    Both are sums over the sampled anchors of the batch, over their number. As in mmdetection, every image counts at
    least one positive and one negative.

    Args:
        logits: Objectness (B, A, H_i, W_i) of every level.
        deltas: Box deltas (B, 4*A, H_i, W_i) of every level.
        indices: Sampled anchors (B, S), int32, numbered by level, row, column and ratio.
        labels: 1 for positives, float32 (B, S).
        weights: 0 in unused slots, float32 (B, S).
        targets: Deltas of the positives, float32 (B, S, 4).

    Returns:
        Two float32 scalars.
    """
    batch = indices.shape[0]
    flat = ops.cat([level.transpose(0, 2, 3, 1).reshape(batch, -1) for level in logits], 1)
    moves = ops.cat([level.transpose(0, 2, 3, 1).reshape(batch, -1, 4) for level in deltas], 1)
    positives = labels * weights
    counts = positives.sum(1), (weights - positives).sum(1)
    total = ops.maximum(counts[0], ops.ones_like(counts[0])) + ops.maximum(counts[1], ops.ones_like(counts[1]))
    total = total.sum()
    chosen = ops.gather_elements(flat, 1, indices)
    moved = ops.gather_elements(moves, 1, ops.broadcast_to(indices.expand_dims(-1), targets.shape))
    objectness = (binary_cross_entropy(chosen, labels) * weights).sum() / total
    return objectness, (smooth_l1(moved, targets).sum(-1) * positives).sum() / total


def box_losses(
    stage: int, logits: Tensor, deltas: Tensor, boxes: Tensor, labels: Tensor, used: Tensor, gt: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the class and box losses of a cascade stage, without its weight.

    The class loss is the cross entropy's mean over all RoIs. The box loss is 1 - GIoU of the decoded boxes of the
    positives, in their own class, over the number of all RoIs.

    Args:
        stage: The cascade stage, from 0.
        logits: Class logits (B, R, K + 1).
        deltas: Box deltas (B, R, 4*K).
        boxes: RoIs (B, R, 4).
        labels: Classes (B, R), int32; K for background.
        used: Which RoIs are used (B, R), bool.
        gt: The ground-truth boxes of the positives (B, R, 4).

    Returns:
        Two float32 scalars.
    """
    classes = logits.shape[-1] - 1
    weights = used.astype(ms.float32)
    total = ops.maximum(weights.sum(), Tensor(1.0, ms.float32))
    entropy = cross_entropy(logits, labels)
    positive = labels < classes
    own = class_deltas(deltas, ops.minimum(labels, ops.zeros_like(labels) + (classes - 1)))
    # Other RoIs are compared with themselves, so that no gradient is infinite.
    target = ops.select(ops.broadcast_to(positive.expand_dims(-1), gt.shape), gt, boxes)
    loss = giou_loss(decode_boxes(boxes, own, STAGE_STDS[stage]), target)
    return (entropy * weights).sum() / total, (loss * weights * positive.astype(ms.float32)).sum() / total


def mask_loss(logits: Tensor, targets: Tensor, positive: Tensor) -> Tensor:
    """Return the mask loss of a cascade stage, without its weight: the mean over the positives and their pixels.

    Args:
        logits: Mask logits of each RoI's own class (B, R, 2*S, 2*S).
        targets: 0 or 1, float32, of the same shape.
        positive: Which RoIs are positives (B, R), bool.

    Returns:
        A float32 scalar; 0 without positives.
    """
    weights = positive.astype(ms.float32)
    loss = binary_cross_entropy(logits, targets).mean((2, 3))
    return (loss * weights).sum() / ops.maximum(weights.sum(), Tensor(1.0, ms.float32))


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


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross entropy of every RoI, float32 (B, R).

    Most RoIs are background with a probability near 1, whose gradient is a small difference. MindSpore's LogSoftmax
    has it from an approximate exponential on CPU, with errors of 1e-4; this form is exact to rounding.

    Args:
        logits: Class logits (B, R, classes).
        labels: Classes (B, R), int32.
    """
    above = logits - ops.stop_gradient(logits.max(-1, keepdims=True))
    own = ops.gather_elements(above, 2, labels.expand_dims(-1)).reshape(labels.shape)
    return ops.log(ops.exp(above).sum(-1)) - own


def binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross entropy of each logit with a target from 0 to 1, of the same shape."""
    return ops.relu(logits) - logits * targets + ops.log(1.0 + ops.exp(-ops.abs(logits)))
