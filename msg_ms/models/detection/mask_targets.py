"""Training targets of masks from cropped ground truth.

A ground-truth bitmap at full size would be a megabyte of a graph's input for each object. So data workers crop each to
its box at a fixed size, and the graph samples its targets from the crop.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from ...boxes.masks import CROP_SIZE
from ...ops import RoIAlign


class MaskTargets(nn.Cell):
    """Training targets of the mask head: each RoI's mask, sampled from the crop of its ground-truth box.

    Args:
        size: side of a target.
        crop_size: side of a crop.
    """

    def __init__(self, size: int = 28, crop_size: int = CROP_SIZE):
        super().__init__()
        self.crop_size = crop_size
        # An RoI is seldom longer than twice its ground-truth box.
        self.roi_align = RoIAlign(size, (1,), max_cells=2 * crop_size)

    def construct(self, crops: Tensor, frames: Tensor, rois: Tensor, gt_index: Tensor) -> Tensor:
        """Sample targets.

        Args:
            crops: (B, G, crop, crop), of ``msg_ms.boxes.masks.crop_mask``.
            frames: (B, G, 4), the boxes that the crops show.
            rois: (B, R, 4).
            gt_index: (B, R), int32, the ground-truth box of each RoI; any valid index for negatives.

        Returns:
            (B, R, size, size), float32, 0 or 1.
        """
        batch, count = frames.shape[:2]
        own = ops.gather_elements(frames, 1, gt_index.expand_dims(-1).broadcast_to((-1, -1, 4)))
        corner = ops.cat((own[..., :2], own[..., :2]), -1)
        side = own[..., 2:] - own[..., :2]
        # Padding has no area.
        side = ops.maximum(ops.cat((side, side), -1), ops.zeros_like(own) + 1e-3)
        boxes = (rois - corner) * (float(self.crop_size) / side)
        image = ops.arange(0, batch).astype(ms.int32).reshape(-1, 1) * count + gt_index
        indexed = ops.cat((image.astype(ms.float32).reshape(-1, 1), boxes.reshape(-1, 4)), 1)
        maps = crops.reshape(batch * count, 1, self.crop_size, self.crop_size).astype(ms.float32)
        soft = self.roi_align((maps,), indexed, ops.zeros_like(image).reshape(-1))
        targets = (soft >= 0.5 * 255).astype(ms.float32)
        return ops.stop_gradient(targets.reshape(batch, rois.shape[1], *soft.shape[2:]))
