"""Sampling of anchors (NumPy, in data workers) and of proposals (in the graph), as mmdetection's ``RandomSampler``."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

from .assign import RPN_RULE, AssignRule, assign_anchors


def sample_anchors(
    assigned: np.ndarray, count: int, positives: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Sample anchors of one image.

    Args:
        assigned: (A,), an assignment; anchors with -1 are not sampled.
        count: anchors to sample.
        positives: the most positives among them; negatives fill the rest.
        rng: source of the draws, seeded by the image and the epoch.

    Returns:
        Indices of the positives and of the negatives, each sorted. They may be fewer than ``count``.
    """
    positive, negative = np.flatnonzero(assigned > 0), np.flatnonzero(assigned == 0)
    if len(positive) > positives:
        positive = np.sort(rng.choice(positive, positives, replace=False))
    rest = count - len(positive)
    if len(negative) > rest:
        negative = np.sort(rng.choice(negative, rest, replace=False))
    return positive, negative


def encode_numpy(boxes: np.ndarray, gt: np.ndarray) -> np.ndarray:
    """Do the same as ``boxes.encode_boxes`` with standard deviations 1.

    Args:
        boxes: (N, 4).
        gt: (N, 4).

    Returns:
        (N, 4), float32.
    """
    half = np.float32(0.5)
    size, gt_size = boxes[:, 2:] - boxes[:, :2], gt[:, 2:] - gt[:, :2]
    shift = ((gt[:, :2] + gt[:, 2:]) * half - (boxes[:, :2] + boxes[:, 2:]) * half) / size
    return np.concatenate([shift, np.log(gt_size / size)], 1).astype(np.float32)


def rpn_targets(
    anchors: np.ndarray,
    inside: np.ndarray,
    gt: np.ndarray,
    rng: np.random.Generator,
    count: int = 256,
    positives: int = 128,
    rule: AssignRule = RPN_RULE,
) -> dict[str, np.ndarray]:
    """Assign and sample anchors of one image; the training targets of the RPN with static shapes.

    Args:
        anchors: (A, 4), of all levels.
        inside: (A,), bool, anchors that take part.
        gt: (G, 4), without padding.
        rng: as in ``sample_anchors``.
        count: anchors to sample.
        positives: the most positives.
        rule: thresholds of the assignment.

    Returns:
        ``indices`` (count,) int32, positives first, 0 in unused slots; ``labels`` (count,) float32, 1 for positives;
        ``weights`` (count,) float32, 0 in unused slots; ``deltas`` (count, 4) float32, 0 except for positives.
    """
    used = np.flatnonzero(inside)
    assigned, _ = assign_anchors(anchors[used], gt, rule)
    positive, negative = sample_anchors(assigned, count, positives, rng)
    sampled = len(positive) + len(negative)
    indices, deltas = np.zeros(count, np.int32), np.zeros((count, 4), np.float32)
    indices[:sampled] = used[np.concatenate([positive, negative])]
    if len(positive):
        deltas[: len(positive)] = encode_numpy(anchors[used[positive]], gt[assigned[positive] - 1])
    slots = np.arange(count)
    return {
        "indices": indices,
        "labels": (slots < len(positive)).astype(np.float32),
        "weights": (slots < sampled).astype(np.float32),
        "deltas": deltas,
    }


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


def sample_regions(assigned: Tensor, draws: Tensor, count: int, positives: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sample proposals in the graph: those with the smallest draws among the positives and among the negatives.

    With independent uniform draws this is a uniform sample, and the same draws repeat it.

    Args:
        assigned: (B, P), int32.
        draws: (B, P), uniform in [0, 1).
        count: R, regions to sample, at most P.
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
