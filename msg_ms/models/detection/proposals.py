"""Region proposals from the predictions of the region proposal network."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops import constexpr

from ...boxes.anchors import grid_anchors
from ...ops import Transpose
from .box_coder import decode_boxes
from .nms import BatchedNMS


class Proposals(nn.Cell):
    """The best boxes of all levels after suppression within each level; no gradient flows through them.

    Args:
        strides: Pixels per cell of every level.
        candidates: Anchors of every level that enter the suppression, those with the highest scores.
        count: Proposals P of an image.
        iou: IoU above which the box of lower score is removed.
    """

    def __init__(self, strides: Sequence[int], candidates: int, count: int, iou: float):
        super().__init__()
        self.strides, self.candidates = tuple(strides), candidates
        self.nms, self.transpose = BatchedNMS(iou, count), Transpose()

    def construct(
        self, logits: tuple[Tensor, ...], deltas: tuple[Tensor, ...], img_shapes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return proposals by falling score.

        Args:
            logits: Objectness (B, A, H_i, W_i) of every level.
            deltas: Box deltas (B, 4*A, H_i, W_i) of every level.
            img_shapes: Height and width of the images without padding, float32 (B, 2).

        Returns:
            Boxes (B, P, 4), probabilities (B, P), and which are used (B, P), bool. Unused slots have zeros.
        """
        boxes, scores, groups = [], [], []
        for i in range(len(logits)):
            batch, _, rows, columns = logits[i].shape
            anchors = _anchors(rows, columns, self.strides[i])
            logit = self.transpose(ops.stop_gradient(logits[i]), (0, 2, 3, 1)).reshape(batch, -1)
            delta = self.transpose(ops.stop_gradient(deltas[i]), (0, 2, 3, 1)).reshape(batch, -1, 4)
            best, order = ops.topk(ops.sigmoid(logit), min(self.candidates, logit.shape[1]))
            delta = ops.gather_elements(delta, 1, ops.broadcast_to(order.expand_dims(-1), (*order.shape, 4)))
            taken = ops.gather(anchors, order, 0)
            boxes.append(decode_boxes(taken, delta, limits=img_shapes.expand_dims(1)))
            scores.append(best)
            groups.append(ops.zeros_like(order).astype(ms.int32) + i)
        boxes, scores, groups = ops.cat(boxes, 1), ops.cat(scores, 1), ops.cat(groups, 1)
        kept, used = self.nms(boxes, scores, groups, scores >= 0)
        weight = used.astype(ms.float32)
        boxes = ops.gather_elements(boxes, 1, ops.broadcast_to(kept.expand_dims(-1), (*kept.shape, 4)))
        return boxes * weight.expand_dims(-1), ops.gather_elements(scores, 1, kept) * weight, used


@constexpr
def _anchors(rows, columns, stride):
    """Return the anchors of a level, float32 (rows*columns*A, 4)."""
    return Tensor(np.concatenate(grid_anchors([(rows, columns)], [stride])))
