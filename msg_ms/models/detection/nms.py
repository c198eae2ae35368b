"""Non-maximum suppression by groups (levels or classes), as mmcv 1.4.0's ``batched_nms`` and mmdetection use it."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from ...ops import NMS


class BatchedNMS(nn.Cell):
    """The best boxes after suppression within each group.

    All groups are suppressed at once: boxes are shifted by group * (largest coordinate + 1), so that boxes of
    different groups don't overlap. The rounding of the shifted boxes is mmcv's too.

    Args:
        threshold: IoU above which the box of lower score is removed.
        count: boxes to return.
    """

    def __init__(self, threshold: float, count: int):
        super().__init__()
        self.nms = NMS(threshold)
        self.count = count

    def construct(self, boxes: Tensor, scores: Tensor, groups: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Select boxes.

        Args:
            boxes: (B, N, 4), float32, with coordinates of at least 0.
            scores: (B, N), above -1.
            groups: (B, N), int32.
            valid: (B, N), bool; the other boxes are never returned.

        Returns:
            Indices of the kept boxes by falling score (B, count), int32, and which of them are used (B, count), bool.
            Unused slots come last, with index 0.
        """
        total = boxes.shape[1]
        lowest = ops.zeros_like(scores) - 1.0
        order = ops.topk(ops.select(valid, scores, lowest), total)[1]
        largest = ops.amax(ops.select(valid, ops.amax(boxes, -1), lowest), -1, keepdims=True)
        shifted = boxes + (groups.astype(ms.float32) * (largest + 1.0)).expand_dims(-1)
        shifted = ops.gather_elements(shifted, 1, order.expand_dims(-1).broadcast_to((-1, -1, 4)))
        kept = self.nms(shifted, ops.gather_elements(valid.astype(ms.int32), 1, order) > 0)
        # Whole numbers that fall with the rank of a kept box; 0 for the others.
        ranks = ops.arange(total, 0, -1).astype(ms.float32)
        first, places = ops.topk(kept.astype(ms.float32) * ranks, min(self.count, total))
        used = first > 0
        indices = ops.gather_elements(order, 1, places).astype(ms.int32)
        indices = ops.select(used, indices, ops.zeros_like(indices))
        if total < self.count:
            padding = ops.zeros((boxes.shape[0], self.count - total), ms.int32)
            indices, used = ops.cat((indices, padding), 1), ops.cat((used, padding > 0), 1)
        return indices, used


class MulticlassNMS(nn.Cell):
    """The detections of a batch: suppression within each class (mmdetection's ``multiclass_nms``).

    mmdetection suppresses all pairs of box and class above the threshold. Here at most ``candidates`` pairs take
    part, those with the highest scores. With fewer pairs above the threshold the result is the same.

    Args:
        score_threshold: only higher scores take part.
        iou_threshold: IoU above which the box of lower score is removed.
        count: detections to return.
        candidates: bound on the pairs of box and class.
    """

    def __init__(
        self, score_threshold: float = 0.05, iou_threshold: float = 0.5, count: int = 100, candidates: int = 4096
    ):
        super().__init__()
        self.score_threshold, self.candidates = score_threshold, candidates
        self.nms = BatchedNMS(iou_threshold, count)

    def construct(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Select detections.

        Args:
            boxes: (B, P, K * 4), a box for each class.
            scores: (B, P, K + 1), probabilities, background last; 0 for padded proposals.

        Returns:
            Boxes (B, count, 4), scores (B, count), the flat index proposal * K + class (B, count), int32, and which of
            them are used (B, count), bool. By falling score; unused slots come last, with zeros.
        """
        batch, _, classes = scores.shape
        classes -= 1
        flat = scores[..., :classes].reshape(batch, -1)
        chosen, pairs = ops.topk(flat, min(self.candidates, flat.shape[1]))
        taken = ops.gather_elements(boxes.reshape(batch, -1, 4), 1, pairs.expand_dims(-1).broadcast_to((-1, -1, 4)))
        groups = (pairs.astype(ms.int32)) % classes
        indices, used = self.nms(taken, chosen, groups, chosen > self.score_threshold)
        weight = used.astype(ms.float32)
        kept = ops.gather_elements(taken, 1, indices.expand_dims(-1).broadcast_to((-1, -1, 4)))
        kept_pairs = ops.gather_elements(pairs.astype(ms.int32), 1, indices)
        return (
            kept * weight.expand_dims(-1),
            ops.gather_elements(chosen, 1, indices) * weight,
            ops.select(used, kept_pairs, ops.zeros_like(kept_pairs)),
            used,
        )
