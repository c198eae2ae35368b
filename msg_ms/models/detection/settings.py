"""The sizes and thresholds of Cascade R-CNN, with the values of Swin Transformer's detection recipe."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from ...errors import UserError, shown
from ..arguments import number, switch, whole_number

STAGES = 3
# Standard deviations of each cascade stage's deltas (dx, dy, dw, dh).
STAGE_STDS = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))


@dataclass(frozen=True)
class DetectorSettings:
    """The detector's arguments apart from those of the backbone.

    Attributes:
        num_classes: Classes K, without background.
        masks: Whether there are mask heads: Cascade Mask R-CNN. Without them it is Cascade R-CNN.
        fpn_channels: Channels of the pyramid and of the heads' convolutions.
        fc_channels: Channels of the box heads' linear layer.
        box_size: Side of an RoI's features for the box heads.
        mask_size: Side of an RoI's features for the mask heads; masks have twice this side.
        strides: Pixels per cell of each level; the RoI heads use all but the last.
        proposal_iou: IoU above which the proposals' NMS removes a box.
        test_candidates: Anchors per level that enter the proposals' NMS at test time.
        test_proposals: Proposals per image at test time.
        train_candidates: As ``test_candidates``, in training.
        train_proposals: Proposals per image in training.
        score_threshold: Least score of a detection, exclusive.
        detection_iou: IoU above which the detections' NMS removes a box of the same class.
        max_detections: Detections per image.
        mask_threshold: Least probability of a mask's pixels.
        roi_samples: RoIs per image that every cascade stage is trained on.
        roi_positives: The most positives among them.
        stage_ious: Every cascade stage's least IoU of a positive.
        stage_weights: Every cascade stage's loss weight.
        box_loss_weight: Weight of the GIoU loss.

    Raises:
        UserError: If a value is out of range, or a list has another length than its default.
    """

    num_classes: int = 80
    masks: bool = True
    fpn_channels: int = 256
    fc_channels: int = 1024
    box_size: int = 7
    mask_size: int = 14
    strides: tuple[int, ...] = (4, 8, 16, 32, 64)
    proposal_iou: float = 0.7
    test_candidates: int = 1000
    test_proposals: int = 1000
    train_candidates: int = 2000
    train_proposals: int = 2000
    score_threshold: float = 0.05
    detection_iou: float = 0.5
    max_detections: int = 100
    mask_threshold: float = 0.5
    roi_samples: int = 512
    roi_positives: int = 128
    stage_ious: tuple[float, ...] = (0.5, 0.6, 0.7)
    stage_weights: tuple[float, ...] = (1.0, 0.5, 0.25)
    box_loss_weight: float = 10.0

    def __post_init__(self):
        for field in fields(self):
            value, default = getattr(self, field.name), field.default
            if isinstance(default, tuple):
                value = _checked_list(field.name, value, default)
            elif isinstance(default, bool):
                value = switch(field.name, value)
            else:
                # MindSpore's operators refuse whole numbers in place of floats.
                whole = isinstance(default, int)
                value = whole_number(field.name, value, 1) if whole else float(number(field.name, value))
            object.__setattr__(self, field.name, value)
        for name in ("proposal_iou", "score_threshold", "detection_iou", "mask_threshold"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise UserError(f"{name}={value:g}: must be from 0 to 1")
        if self.roi_positives > self.roi_samples:
            raise UserError(f"roi_positives={self.roi_positives}: must be at most roi_samples={self.roi_samples}")


def _checked_list(name: str, values: Any, default: tuple) -> tuple:
    """Return a list as a tuple; raise UserError unless it has the default's length and kind."""
    least = int(isinstance(default[0], int))
    if isinstance(values, list | tuple):
        entries = tuple((whole_number if least else number)(f"{name}[{i}]", value) for i, value in enumerate(values))
        if len(entries) == len(default) and min(entries) >= least:
            return entries
        values = list(values)
    raise UserError(f"{name}={shown(values)}: must have {len(default)} entries of at least {least}")
