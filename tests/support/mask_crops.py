"""Bitmaps cropped to boxes, and RoIAlign of bitmaps from its definition."""

from __future__ import annotations

import math

import numpy as np

from msg_ms.boxes.masks import CROP_SIZE, crop_mask


def bin_weights(low: float, high: float, bins: int, size: int) -> np.ndarray:
    """RoIAlign's weights (bins, size) along one axis: the mean of each bin's samples, bilinear between centres."""
    length = (float(high) - float(low)) / bins
    samples = max(math.ceil(length), 0)
    if not samples:
        return np.zeros((bins, size))
    position = low - 0.5 + length * (np.arange(bins)[:, None] + (np.arange(samples) + 0.5) / samples)
    used = (position >= -1) & (position <= size)
    distance = np.abs(np.clip(position, 0, size - 1)[..., None] - np.arange(size))
    return (np.maximum(1 - distance, 0) * used[..., None]).mean(1)


def crop_resize(bitmap: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """The mean of a bitmap in size x size bins of a box, float32."""
    x1, y1, x2, y2 = map(float, box)
    rows, columns = (bin_weights(*ends, size, n) for ends, n in zip(((y1, y2), (x1, x2)), bitmap.shape, strict=True))
    return (rows.astype(np.float32) @ bitmap.astype(np.float32)) @ columns.astype(np.float32).T


def crop_masks(bitmaps: np.ndarray, boxes: np.ndarray, size: int = CROP_SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Crop bitmaps (G, height, width) to their boxes (G, 4): crops (G, size, size) and the boxes that they show."""
    rows, columns = (np.arange(side) for side in bitmaps.shape[1:])
    crops, frames = np.zeros((len(boxes), size, size), np.uint8), np.zeros((len(boxes), 4), np.float32)
    for i, (bitmap, box) in enumerate(zip(bitmaps, boxes, strict=True)):
        crops[i], frames[i] = crop_mask(bitmap, rows, columns, box, size)
    return crops, frames
