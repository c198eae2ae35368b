"""Assignment of anchors to ground-truth boxes, in NumPy.

An assignment is -1 (ignored), 0 (background) or k + 1 (ground-truth box k), as in mmdetection's ``MaxIoUAssigner``.
Several anchors often have mathematically equal IoUs with a box. So the order of operations in float32 is
mmdetection's, which decides such ties.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

EPS = 1e-6  # least area of a union


@dataclass(frozen=True)
class AssignRule:
    """Thresholds of an assignment.

    Args:
        positive: least IoU of a positive.
        negative: IoU below which a box is background.
        low_quality: also assign each ground-truth box to all boxes with its largest IoU.
        min_positive: least such IoU, above 0.
    """

    positive: float
    negative: float
    low_quality: bool = False
    min_positive: float = 0.0


RPN_RULE = AssignRule(0.7, 0.3, low_quality=True, min_positive=0.3)


def iou_numpy(boxes: np.ndarray, gt: np.ndarray) -> np.ndarray:
    """Return the IoU of boxes with one ground-truth box.

    Args:
        boxes: (N, 4), float32.
        gt: (4,), float32.

    Returns:
        (N,), float32.
    """
    size = np.minimum(boxes[:, 2:], gt[2:]) - np.maximum(boxes[:, :2], gt[:2])
    size = np.maximum(size, np.float32(0))
    overlap = size[:, 0] * size[:, 1]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    union = (gt[2] - gt[0]) * (gt[3] - gt[1]) + area - overlap
    return overlap / np.maximum(union, np.float32(EPS))


def assign_anchors(anchors: np.ndarray, gt: np.ndarray, rule: AssignRule = RPN_RULE) -> tuple[np.ndarray, np.ndarray]:
    """Assign anchors to the ground-truth boxes of one image.

    Args:
        anchors: (A, 4), float32.
        gt: (G, 4), float32, without padding.
        rule: the thresholds.

    Returns:
        The assignment (A,), int32, and the largest IoU (A,), float32.

    Raises:
        ValueError: ``rule.low_quality`` with ``rule.min_positive`` 0, which would assign boxes without overlap.
    """
    if rule.low_quality and rule.min_positive <= 0:
        raise ValueError("min_positive must be above 0")
    anchors, gt = np.asarray(anchors, np.float32), np.asarray(gt, np.float32)
    best, best_gt = np.zeros(len(anchors), np.float32), np.zeros(len(anchors), np.int32)
    assigned = np.full(len(anchors), -1, np.int32)
    if len(gt) == 0:
        assigned[:] = 0
        return assigned, best
    near = []
    for k, box in enumerate(gt):
        # Only these can have an IoU above 0; they are few.
        x1, y1, x2, y2 = anchors.T
        touching = np.flatnonzero((x1 < box[2]) & (x2 > box[0]) & (y1 < box[3]) & (y2 > box[1]))
        iou = iou_numpy(anchors[touching], box)
        near.append((touching, iou))
        better = iou > best[touching]
        best[touching[better]], best_gt[touching[better]] = iou[better], k
    assigned[best < np.float32(rule.negative)] = 0
    positive = best >= np.float32(rule.positive)
    assigned[positive] = best_gt[positive] + 1
    for k, (touching, iou) in enumerate(near if rule.low_quality else []):
        largest = iou.max(initial=0)
        if largest >= np.float32(rule.min_positive):
            assigned[touching[iou == largest]] = k + 1
    return assigned, best
