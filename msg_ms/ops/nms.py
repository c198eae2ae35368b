"""Greedy non-maximum suppression with static shapes."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from .backend import kernel


class NMS(nn.Cell):
    """Keep each box unless its IoU with a kept box of higher score is above a threshold.

    The IoU is mmcv's, without + 1 pixel. The composed form is ``ops.NMSWithMask`` on each image.

    Args:
        threshold: IoU above which the box of lower score is removed.
    """

    def __init__(self, threshold: float):
        super().__init__()
        self.threshold = Tensor(np.array([threshold], np.float32))
        self.native = kernel("nms", lambda boxes, valid, threshold: valid)
        self.composed_nms = ops.NMSWithMask(threshold)

    def construct(self, boxes: Tensor, valid: Tensor) -> Tensor:
        """Select boxes.

        Args:
            boxes: (B, N, 4), float32, by falling score; boxes that are not valid come last.
            valid: (B, N), bool.

        Returns:
            (B, N), bool, True for valid boxes that are kept.
        """
        boxes = ops.stop_gradient(boxes)
        if self.native is not None:
            return self.native(boxes, valid.astype(ms.float32), self.threshold) > 0
        # The operator sorts by score; these keep the order.
        scores = ops.arange(boxes.shape[1], 0, -1).astype(ms.float32).expand_dims(1)
        kept = [self.composed_nms(ops.cat((boxes[i], scores), 1))[2] for i in range(boxes.shape[0])]
        return ops.logical_and(ops.stack(kept), valid)
