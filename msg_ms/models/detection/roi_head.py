"""The three cascade stages of box heads and, in a detector with masks, mask heads."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from ...ops import RoIAlign
from .bbox_head import BBoxHead
from .box_coder import decode_boxes
from .iou import areas
from .mask_head import MaskHead
from .settings import STAGE_STDS, STAGES, DetectorSettings

FINEST = 56.0  # side in pixels from which an RoI belongs to the finest level
LEVEL_EPSILON = 1e-6  # of a side over ``FINEST``


class RoIHead(nn.Cell):
    """The heads of the three cascade stages, under mmdetection's names; mask heads if the detector has masks.

    Args:
        settings: The detector's sizes.
    """

    def __init__(self, settings: DetectorSettings):
        super().__init__()
        s, channels = settings, settings.fpn_channels
        self.bbox_head = nn.CellList(
            [BBoxHead(channels, channels, s.fc_channels, s.box_size, s.num_classes) for _ in range(STAGES)]
        )
        mask_heads = STAGES if s.masks else 0
        self.mask_head = nn.CellList([MaskHead(channels, channels, s.num_classes) for _ in range(mask_heads)])
        # The last level of the pyramid is for the region proposal network alone.
        self.box_align = RoIAlign(s.box_size, s.strides[:-1])
        self.mask_align = RoIAlign(s.mask_size, s.strides[:-1])

    def predict_boxes(
        self, stage: int, pyramid: tuple[Tensor, ...], boxes: Tensor, used: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return a cascade stage's class logits and box deltas.

        Args:
            stage: The cascade stage, from 0.
            pyramid: Maps (B, C, H_i, W_i).
            boxes: RoIs (B, R, 4). No gradient flows into them.
            used: Which RoIs take part in the batch normalisation in training, bool (B, R); None means all.

        Returns:
            Logits (B, R, K + 1), background last, and deltas (B, R, 4*K), float32.
        """
        batch, count, _ = boxes.shape
        flat = None if used is None else used.reshape(-1)
        logits, deltas = self.bbox_head[stage](self._features(self.box_align, pyramid, boxes), flat)
        return logits.reshape(batch, count, -1), deltas.reshape(batch, count, -1)

    def predict_masks(self, stage: int, pyramid: tuple[Tensor, ...], boxes: Tensor, labels: Tensor) -> Tensor:
        """Return a cascade stage's mask logits of each RoI's own class.

        Args:
            stage: The cascade stage, from 0.
            pyramid: Maps (B, C, H_i, W_i).
            boxes: RoIs (B, R, 4).
            labels: Classes (B, R), int32, below K.

        Returns:
            Logits (B, R, 2*S, 2*S), float32.
        """
        batch, count, _ = boxes.shape
        logits = self.mask_head[stage](self._features(self.mask_align, pyramid, boxes))
        classes, height, width = logits.shape[1:]
        index = ops.arange(0, batch * count).astype(ms.int32) * classes + labels.reshape(-1)
        own = ops.gather(logits.reshape(-1, height * width), index, 0)
        return own.reshape(batch, count, height, width)

    def refine(self, stage: int, boxes: Tensor, labels: Tensor, deltas: Tensor, img_shapes: Tensor) -> Tensor:
        """Return the RoIs of the next cascade stage: boxes moved by the deltas of one class each, without gradient.

        Args:
            stage: The cascade stage that predicted the deltas.
            boxes: RoIs (B, R, 4).
            labels: Classes (B, R), int32, below K.
            deltas: Deltas (B, R, 4*K).
            img_shapes: Height and width (B, 2) to which the result is clipped.
        """
        own = class_deltas(ops.stop_gradient(deltas), labels)
        return ops.stop_gradient(decode_boxes(boxes, own, STAGE_STDS[stage], img_shapes.expand_dims(1)))

    def cascade(
        self, pyramid: tuple[Tensor, ...], boxes: Tensor, img_shapes: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Run the box heads of all cascade stages at test time.

        Args:
            pyramid: Maps (B, C, H_i, W_i).
            boxes: Proposals (B, P, 4).
            img_shapes: Height and width (B, 2) to which boxes are clipped.

        Returns:
            Three tuples with an entry for every cascade stage: its RoIs (B, P, 4), logits and deltas.
        """
        rois: tuple[Tensor, ...] = ()
        logits: tuple[Tensor, ...] = ()
        deltas: tuple[Tensor, ...] = ()
        for stage in range(STAGES):
            logit, delta = self.predict_boxes(stage, pyramid, boxes)
            rois, logits, deltas = (*rois, boxes), (*logits, logit), (*deltas, delta)
            if stage + 1 < STAGES:
                boxes = self.refine(stage, boxes, best_class(logit), delta, img_shapes)
        return rois, logits, deltas

    def _features(self, align: RoIAlign, pyramid: tuple[Tensor, ...], boxes: Tensor) -> Tensor:
        """Return the features (B*R, C, S, S) of RoIs (B, R, 4)."""
        batch, count, _ = boxes.shape
        image = ops.broadcast_to(ops.arange(0, batch).astype(boxes.dtype).reshape(-1, 1, 1), (batch, count, 1))
        rois = ops.cat((image, boxes), -1).reshape(-1, 5)
        return align(pyramid[:-1], rois, map_roi_levels(rois[:, 1:]))


def best_class(logits: Tensor) -> Tensor:
    """Return the class of the largest logit without background: (..., K + 1) -> int32 (...)."""
    return ops.argmax(ops.stop_gradient(logits)[..., :-1], -1).astype(ms.int32)


def class_deltas(deltas: Tensor, labels: Tensor) -> Tensor:
    """Return the deltas of one class for each RoI.

    Args:
        deltas: Deltas (B, R, 4*K).
        labels: Classes (B, R), int32, below K.

    Returns:
        Deltas (B, R, 4).
    """
    batch, count, _ = deltas.shape
    index = ops.broadcast_to(labels.reshape(batch, count, 1, 1), (batch, count, 1, 4))
    return ops.gather_elements(deltas.reshape(batch, count, -1, 4), 2, index).reshape(batch, count, 4)


def map_roi_levels(boxes: Tensor, levels: int = 4, finest: float = FINEST) -> Tensor:
    """Return the FPN level of each RoI: floor(log2(sqrt(area) / finest + 1e-6)), from 0 to levels - 1.

    Args:
        boxes: (..., 4).
        levels: number of levels.
        finest: side in pixels from which an RoI belongs to the finest level; twice it is level 1.

    Returns:
        (...), int32.
    """
    scale = ops.sqrt(areas(boxes)) / finest + LEVEL_EPSILON
    level = ops.zeros_like(scale).astype(ms.int32)
    for i in range(1, levels):
        level = level + (scale >= 2.0**i).astype(ms.int32)
    return level
