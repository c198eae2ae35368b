"""Drawings of augmented training batches, as the model gets them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..boxes.batches import DetectionBatch
from ..boxes.masks import paste_masks
from ..boxes.rle import decode_rle
from ..data.classification import ClassificationBatch
from ..data.pixels.preprocessing import denormalize
from ..visualize.detections import draw_objects

Drawing = tuple[np.ndarray, str]  # uint8 RGB (H, W, 3), and its caption


def draw_classes(batch: ClassificationBatch, classes: Sequence[str]) -> list[Drawing]:
    """Return the normalised images of a batch with their classes."""
    pairs = zip(batch.images, batch.labels, strict=True)
    return [(denormalize(image), _class_caption(label, classes)) for image, label in pairs]


def _class_caption(label: np.ndarray, classes: Sequence[str]) -> str:
    """Return the class name, or for a mixed label both names with their weights."""
    if label.ndim == 0:
        return classes[int(label)]
    weights = label - label.min()  # remove the label smoothing
    weights = weights / max(weights.sum(), 1e-12)
    best = [i for i in np.argsort(-weights)[:2] if weights[i] > 0.01]
    return " + ".join(f"{classes[i]} {weights[i]:.0%}" if len(best) > 1 else classes[i] for i in best)


def draw_ground_truth(batch: DetectionBatch, names: Sequence[str]) -> list[Drawing]:
    """Return the images of a batch with boxes and masks, if there are any, and the number of objects."""
    drawings = []
    truth = (array for array in batch.gt if array is not None)
    for image, size, boxes, labels, valid, *crops in zip(batch.images, batch.img_shapes, *truth, strict=True):
        height, width = size.astype(int)
        masks = paste_masks(crops[0][valid] / 255, crops[1][valid], int(height), int(width)) if crops else []
        pixels, labels = denormalize(image[:, :height, :width]), labels[valid].tolist()
        texts = [names[label] for label in labels]
        objects = draw_objects(pixels, boxes[valid], labels, texts, [decode_rle(mask) for mask in masks])
        drawings.append((objects, f"{width} x {height}, {len(labels)} objects"))
    return drawings
