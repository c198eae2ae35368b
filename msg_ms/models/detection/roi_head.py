"""The three cascade stages of box and mask heads."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from ...ops import RoIAlign
from .bbox_head import BBoxHead
from .boxes import decode_boxes, region_levels
from .mask_head import MaskHead
from .settings import STAGE_STDS, STAGES, DetectorSettings


class RoIHead(nn.Cell):
    """The box and mask heads of the three cascade stages, under mmdetection's names.

    Args:
        settings: The detector's sizes.
    """

    def __init__(self, settings: DetectorSettings):
        super().__init__()
        s, channels = settings, settings.fpn_channels
        self.bbox_head = nn.CellList(
            [BBoxHead(channels, channels, s.fc_channels, s.box_size, s.num_classes) for _ in range(STAGES)]
        )
        self.mask_head = nn.CellList([MaskHead(channels, channels, s.num_classes) for _ in range(STAGES)])
        # The last level of the pyramid is for the region proposal network alone.
        self.box_align = RoIAlign(s.box_size, s.strides[:-1])
        self.mask_align = RoIAlign(s.mask_size, s.strides[:-1])

    def predict_boxes(
        self, stage: int, pyramid: tuple[Tensor, ...], boxes: Tensor, used: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return a stage's class logits and box deltas.

        Args:
            stage: The stage, from 0.
            pyramid: Maps (B, C, H_i, W_i).
            boxes: Regions (B, R, 4). No gradient flows into them.
            used: Which regions take part in the batch normalisation in training, bool (B, R); None means all.

        Returns:
            Logits (B, R, K + 1), background last, and deltas (B, R, 4*K), float32.
        """
        batch, regions, _ = boxes.shape
        flat = None if used is None else used.reshape(-1)
        logits, deltas = self.bbox_head[stage](self._features(self.box_align, pyramid, boxes), flat)
        return logits.reshape(batch, regions, -1), deltas.reshape(batch, regions, -1)

    def predict_masks(self, stage: int, pyramid: tuple[Tensor, ...], boxes: Tensor, labels: Tensor) -> Tensor:
        """Return a stage's mask logits of each region's own class.

        Args:
            stage: The stage, from 0.
            pyramid: Maps (B, C, H_i, W_i).
            boxes: Regions (B, R, 4).
            labels: Classes (B, R), int32, below K.

        Returns:
            Logits (B, R, 2*S, 2*S), float32.
        """
        batch, regions, _ = boxes.shape
        logits = self.mask_head[stage](self._features(self.mask_align, pyramid, boxes))
        classes, height, width = logits.shape[1:]
        index = ops.arange(0, batch * regions).astype(ms.int32) * classes + labels.reshape(-1)
        own = ops.gather(logits.reshape(-1, height * width), index, 0)
        return own.reshape(batch, regions, height, width)

    def refine(self, stage: int, boxes: Tensor, labels: Tensor, deltas: Tensor, img_shapes: Tensor) -> Tensor:
        """Return the regions of the next stage: boxes moved by the deltas of one class each, without gradient.

        Args:
            stage: The stage that predicted the deltas.
            boxes: Regions (B, R, 4).
            labels: Classes (B, R), int32, below K.
            deltas: Deltas (B, R, 4*K).
            img_shapes: Height and width (B, 2) to which the result is clipped.
        """
        own = class_deltas(ops.stop_gradient(deltas), labels)
        return ops.stop_gradient(decode_boxes(boxes, own, STAGE_STDS[stage], img_shapes.expand_dims(1)))

    def cascade(
        self, pyramid: tuple[Tensor, ...], boxes: Tensor, img_shapes: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Run the box heads of all stages at test time.

        Args:
            pyramid: Maps (B, C, H_i, W_i).
            boxes: Proposals (B, P, 4).
            img_shapes: Height and width (B, 2) to which boxes are clipped.

        Returns:
            Three tuples with an entry for every stage: its regions (B, P, 4), logits and deltas.
        """
        regions: tuple[Tensor, ...] = ()
        logits: tuple[Tensor, ...] = ()
        deltas: tuple[Tensor, ...] = ()
        for stage in range(STAGES):
            logit, delta = self.predict_boxes(stage, pyramid, boxes)
            regions, logits, deltas = (*regions, boxes), (*logits, logit), (*deltas, delta)
            if stage + 1 < STAGES:
                boxes = self.refine(stage, boxes, best_class(logit), delta, img_shapes)
        return regions, logits, deltas

    def _features(self, align: RoIAlign, pyramid: tuple[Tensor, ...], boxes: Tensor) -> Tensor:
        """Return the features (B*R, C, S, S) of regions (B, R, 4)."""
        batch, regions, _ = boxes.shape
        image = ops.broadcast_to(ops.arange(0, batch).astype(boxes.dtype).reshape(-1, 1, 1), (batch, regions, 1))
        rois = ops.cat((image, boxes), -1).reshape(-1, 5)
        return align(pyramid[:-1], rois, region_levels(rois[:, 1:]))


def best_class(logits: Tensor) -> Tensor:
    """Return the class of the largest logit without background: (..., K + 1) -> int32 (...)."""
    return ops.argmax(ops.stop_gradient(logits)[..., :-1], -1).astype(ms.int32)


def class_deltas(deltas: Tensor, labels: Tensor) -> Tensor:
    """Return the deltas of one class for each region.

    Args:
        deltas: Deltas (B, R, 4*K).
        labels: Classes (B, R), int32, below K.

    Returns:
        Deltas (B, R, 4).
    """
    batch, regions, _ = deltas.shape
    index = ops.broadcast_to(labels.reshape(batch, regions, 1, 1), (batch, regions, 1, 4))
    return ops.gather_elements(deltas.reshape(batch, regions, -1, 4), 2, index).reshape(batch, regions, 4)
