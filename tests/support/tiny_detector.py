"""A detector that compiles within seconds, and a training batch for it; no vectors."""

from __future__ import annotations

import numpy as np

from msg_ms import create_detector
from msg_ms.boxes.anchor_grid import AnchorGrid
from msg_ms.boxes.batches import CascadeDraws, DetectionBatch, GroundTruth, RpnTargets
from msg_ms.models.detection.cascade_rcnn import CascadeMaskRCNN

from .mask_crops import crop_masks

BACKBONE = dict(embed_dim=16, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2), window_size=4, shuffle_size=(2, 2, 1, 1))
SETTINGS = dict(
    **dict(fpn_channels=16, fc_channels=24, box_size=3, mask_size=4),
    **dict(test_candidates=40, test_proposals=30, train_candidates=40, train_proposals=30),
    **dict(roi_samples=16, roi_positives=4, max_detections=5),
)
HEIGHT, WIDTH, CLASSES, BOXES, ANCHORS = 64, 96, 3, 3, 24


def tiny_detector(**changes) -> CascadeMaskRCNN:
    return create_detector("cascade_mask_rcnn_msg_tiny", CLASSES, **{**BACKBONE, **SETTINGS, **changes})


def tiny_batch(model: CascadeMaskRCNN, images: int = 2) -> DetectionBatch:
    """A training batch of ``DetectionLoss``: one or two boxes an image, and uniform draws."""
    rng, s = np.random.RandomState(0), model.settings
    grid = AnchorGrid(HEIGHT, WIDTH)
    gt = np.zeros((images, BOXES, 4), np.float32)
    valid = np.zeros((images, BOXES), bool)
    bitmaps = np.zeros((images, BOXES, HEIGHT, WIDTH), np.uint8)
    targets, crops, frames = [], [], []
    for i in range(images):
        for k in range(1 + i % 2):
            box = np.float32([5 + 30 * k, 7 + i, 41 + 30 * k, 50])
            gt[i, k], valid[i, k] = box, True
            bitmaps[i, k, 10:45, 10 + 30 * k : 38 + 30 * k] = 1
        own = gt[i][valid[i]]
        targets.append(grid.targets(own, (HEIGHT, WIDTH), np.random.default_rng(i), ANCHORS, ANCHORS // 2))
        crop, frame = crop_masks(bitmaps[i], gt[i])
        crops.append(crop)
        frames.append(frame)
    candidates = (s.train_proposals, s.roi_samples, s.roi_samples)
    draws = [rng.uniform(size=(images, BOXES + count)).astype(np.float32) for count in candidates]
    noise = rng.uniform(size=(sum(model.backbone.depths), 2, images)).astype(np.float32)
    rpn = RpnTargets(*map(np.stack, zip(*targets, strict=True)))
    pixels = rng.standard_normal((images, 3, HEIGHT, WIDTH)).astype(np.float32)
    shapes = np.float32([[HEIGHT, WIDTH - 3 * i] for i in range(images)])
    labels = (np.arange(images * BOXES) % CLASSES).reshape(images, BOXES).astype(np.int32)
    truth = GroundTruth(gt, labels, valid, np.stack(crops), np.stack(frames))
    return DetectionBatch(pixels, shapes, truth, rpn, CascadeDraws(*draws), noise)
