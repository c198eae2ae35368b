"""The detector that a configuration describes."""

from __future__ import annotations

from ...config import ModelConfig
from ..build import backbone_arguments
from .cascade_rcnn import CascadeMaskRCNN
from .variants import create_detector

POSITIVE_SHARE = 4  # a quarter of the sampled RoIs is positive at most


def build_detector(config: ModelConfig) -> CascadeMaskRCNN:
    """Build the detector of the section ``MODEL`` with random weights.

    Args:
        config: The section ``MODEL``.

    Raises:
        UserError: If a setting is out of range or does not fit the others.
    """
    msg, rcnn = config.msg, config.rcnn
    levels = len(msg.depths) + 1
    return create_detector(
        "cascade_mask_rcnn_msg_tiny",  # every argument of the backbone follows
        config.num_classes,
        **backbone_arguments(config),
        strides=tuple(msg.patch_size * 2**level for level in range(levels)),
        masks=rcnn.masks,
        fpn_channels=rcnn.fpn_channels,
        fc_channels=rcnn.fc_channels,
        train_candidates=rcnn.train_proposals,
        train_proposals=rcnn.train_proposals,
        test_candidates=rcnn.test_proposals,
        test_proposals=rcnn.test_proposals,
        roi_samples=rcnn.roi_samples,
        roi_positives=rcnn.roi_samples // POSITIVE_SHARE,
        score_threshold=rcnn.score_thr,
        max_detections=rcnn.max_per_img,
    )
