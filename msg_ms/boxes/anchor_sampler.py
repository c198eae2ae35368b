"""Sampling of anchors as mmdetection's ``RandomSampler``, and the targets of the region proposal network, in NumPy."""

from __future__ import annotations

import numpy as np

from .batches import RpnTargets


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


def sampled_targets(
    anchors: np.ndarray,
    assigned: np.ndarray,
    gt: np.ndarray,
    rng: np.random.Generator,
    count: int,
    positives: int,
) -> RpnTargets:
    """Sample assigned anchors of one image; return the training targets of the RPN with static shapes.

    Args:
        anchors: (A, 4), of all levels.
        assigned: (A,), an assignment; anchors with -1 are not sampled.
        gt: (G, 4), without padding.
        rng: as in ``sample_anchors``.
        count: anchors to sample.
        positives: the most positives.

    Returns:
        The targets of one image, with N of ``count``.
    """
    positive, negative = sample_anchors(assigned, count, positives, rng)
    sampled = len(positive) + len(negative)
    indices, deltas = np.zeros(count, np.int32), np.zeros((count, 4), np.float32)
    indices[:sampled] = np.concatenate([positive, negative])
    if len(positive):
        deltas[: len(positive)] = encode_numpy(anchors[positive], gt[assigned[positive] - 1])
    slots = np.arange(count)
    labels, weights = ((slots < end).astype(np.float32) for end in (len(positive), sampled))
    return RpnTargets(indices, labels, weights, deltas)
