"""Sampling of proposals in the graph, as mmdetection's ``RandomSampler``; see ``boxes.anchor_sampler`` for anchors."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, ops


def add_gt(
    boxes: Tensor, valid: Tensor, assigned: Tensor, gt: Tensor, gt_valid: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Put the ground-truth boxes in front of the proposals, each assigned to itself.

    Args:
        boxes: (B, P, 4).
        valid: (B, P), bool.
        assigned: (B, P), int32.
        gt: (B, G, 4), padded.
        gt_valid: (B, G), bool.

    Returns:
        Boxes (B, G + P, 4), validity (B, G + P) and assignment (B, G + P); padding is assigned -1.
    """
    own = ops.zeros_like(gt_valid.astype(ms.int32)) + ops.arange(1, gt.shape[1] + 1).astype(ms.int32)
    own = ops.select(gt_valid, own, ops.zeros_like(own) - 1)
    return ops.cat((gt, boxes), 1), ops.cat((gt_valid, valid), 1), ops.cat((own, assigned), 1)


def sample_rois(assigned: Tensor, draws: Tensor, count: int, positives: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sample proposals in the graph: those with the smallest draws among the positives and among the negatives.

    With independent uniform draws this is a uniform sample, and the same draws repeat it.

    Args:
        assigned: (B, P), int32.
        draws: (B, P), uniform in [0, 1).
        count: R, RoIs to sample, at most P.
        positives: the most positives among them; negatives fill the rest.

    Returns:
        Indices (B, R), int32: the positives by rising index, the negatives by rising index, then unused slots with
        index 0; which are positive (B, R), bool; which are used (B, R), bool.
    """
    total = assigned.shape[1]
    positive_keys = ops.select(assigned > 0, draws, ops.zeros_like(draws) + 2.0)
    negative_keys = ops.select(assigned == 0, draws, ops.zeros_like(draws) + 2.0)
    chosen_positive, positive_index = ops.topk(-positive_keys, min(positives, total))
    chosen_negative, negative_index = ops.topk(-negative_keys, count)
    is_positive, is_negative = chosen_positive > -1.5, chosen_negative > -1.5
    rest = count - is_positive.astype(ms.int32).sum(1, keepdims=True)
    is_negative = ops.logical_and(is_negative, ops.arange(0, count).astype(ms.int32) < rest)
    # One sort arranges all slots. The keys are whole numbers below 2**24, exact in float32.
    positive_order = positive_index.astype(ms.float32)
    negative_order = negative_index.astype(ms.float32) + float(total)
    unused = 2.0 * total
    order = ops.cat(
        (
            ops.select(is_positive, positive_order, ops.zeros_like(positive_order) + unused),
            ops.select(is_negative, negative_order, ops.zeros_like(negative_order) + unused),
        ),
        1,
    )
    order = -ops.topk(-order, count)[0]
    positive, used = order < total, order < unused
    indices = ops.select(positive, order, order - float(total))
    return ops.select(used, indices, ops.zeros_like(indices)).astype(ms.int32), positive, used
