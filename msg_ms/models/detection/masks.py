"""Masks: training targets from cropped ground truth, and full-size masks of detections as COCO's run-length encoding.

A ground-truth bitmap at full size would be a megabyte of a graph's input for each object. So data workers crop each to
its box at a fixed size, and the graph samples its targets from the crop.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from ...ops import RoIAlign

CROP_SIZE = 112


def bin_weights(low: float, high: float, bins: int, size: int) -> np.ndarray:
    """Return RoIAlign's weights along one axis (scale 1, aligned, adaptive sampling).

    Args:
        low: start of the region in pixels.
        high: its end.
        bins: bins of the region.
        size: pixels of the axis.

    Returns:
        (bins, size), float32.
    """
    start, length = float(low) - 0.5, (float(high) - float(low)) / bins
    samples = max(int(np.ceil(length)), 0)
    weights = np.zeros((bins, size), np.float32)
    if samples == 0:
        return weights
    position = start + length * (np.arange(bins)[:, None] + (np.arange(samples) + 0.5) / samples)
    used = (position >= -1) & (position <= size)
    inside = np.clip(position, 0, size - 1)
    lower = np.floor(inside).astype(np.int64)
    fraction = inside - lower
    rows = np.broadcast_to(np.arange(bins)[:, None], lower.shape)
    np.add.at(weights, (rows, lower), used * (1 - fraction) / samples)
    np.add.at(weights, (rows, np.minimum(lower + 1, size - 1)), used * fraction / samples)
    return weights


def crop_resize(bitmap: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """Return the mean of a mask in size x size bins of a box (RoIAlign of one map).

    Args:
        bitmap: (height, width).
        box: (4,), in pixels.
        size: bins a side.

    Returns:
        (size, size), float32, from 0 to 1.
    """
    x1, y1, x2, y2 = box
    rows, columns = (bin_weights(*ends, size, n) for ends, n in zip(((y1, y2), (x1, x2)), bitmap.shape, strict=True))
    return _resample(bitmap, rows, columns)


def _resample(bitmap: np.ndarray, row_weights: np.ndarray, column_weights: np.ndarray) -> np.ndarray:
    """Multiply from both sides, without the rows and columns that have no weight."""
    rows, columns = (np.flatnonzero(weights.any(0)) for weights in (row_weights, column_weights))
    rows, columns = (slice(used[0], used[-1] + 1) if len(used) else slice(0) for used in (rows, columns))
    part = bitmap[rows, columns].astype(np.float32)
    return row_weights[:, rows] @ part @ column_weights[:, columns].T


def crop_masks(bitmaps: np.ndarray, boxes: np.ndarray, size: int = CROP_SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Crop ground-truth bitmaps to their boxes, in data workers.

    An axis on which the box and a pixel around it fit into the crop keeps the bitmap's own pixels: targets of small
    objects are exact. A longer axis is resampled to the crop's size.

    Args:
        bitmaps: (G, height, width), 0 or 1.
        boxes: (G, 4).
        size: side of a crop.

    Returns:
        Crops (G, size, size), uint8, 255 for 1, and the boxes in pixels that they show (G, 4), float32.
    """
    crops, frames = np.zeros((len(boxes), size, size), np.uint8), np.zeros((len(boxes), 4), np.float32)
    for i, (bitmap, (x1, y1, x2, y2)) in enumerate(zip(bitmaps, boxes, strict=True)):
        rows, top, bottom = _crop_axis(y1, y2, size, bitmap.shape[0])
        columns, left, right = _crop_axis(x1, x2, size, bitmap.shape[1])
        crops[i] = np.rint(255 * _resample(bitmap, rows, columns))
        frames[i] = left, top, right, bottom
    return crops, frames


def _crop_axis(low: float, high: float, size: int, pixels: int) -> tuple[np.ndarray, float, float]:
    """Return the weights (size, pixels) of a crop along one axis, and the crop's start and end in pixels."""
    start = min(max(int(np.floor(low)) - 1, 0), max(pixels - size, 0))
    if min(np.ceil(high) + 1, pixels) - start > size:
        return bin_weights(low, high, size, pixels), low, high
    weights = np.zeros((size, pixels), np.float32)
    # Beyond the image its last pixel repeats, as RoIAlign has it.
    weights[np.arange(size), np.minimum(start + np.arange(size), pixels - 1)] = 1
    return weights, start, start + size


class MaskTargets(nn.Cell):
    """Training targets of the mask head: each region's mask, sampled from the crop of its ground-truth box.

    Args:
        size: side of a target.
        crop_size: side of a crop.
    """

    def __init__(self, size: int = 28, crop_size: int = CROP_SIZE):
        super().__init__()
        self.crop_size = crop_size
        # A region is seldom longer than twice its ground-truth box.
        self.roi_align = RoIAlign(size, (1,), max_cells=2 * crop_size)

    def construct(self, crops: Tensor, frames: Tensor, regions: Tensor, gt_index: Tensor) -> Tensor:
        """Sample targets.

        Args:
            crops: (B, G, crop, crop), of ``crop_masks``.
            frames: (B, G, 4), the boxes that the crops show.
            regions: (B, R, 4).
            gt_index: (B, R), int32, the ground-truth box of each region; any valid index for negatives.

        Returns:
            (B, R, size, size), float32, 0 or 1.
        """
        batch, count = frames.shape[:2]
        own = ops.gather_elements(frames, 1, gt_index.expand_dims(-1).broadcast_to((-1, -1, 4)))
        corner = ops.cat((own[..., :2], own[..., :2]), -1)
        side = own[..., 2:] - own[..., :2]
        # Padding has no area.
        side = ops.maximum(ops.cat((side, side), -1), ops.zeros_like(own) + 1e-3)
        boxes = (regions - corner) * (float(self.crop_size) / side)
        image = ops.arange(0, batch).astype(ms.int32).reshape(-1, 1) * count + gt_index
        rois = ops.cat((image.astype(ms.float32).reshape(-1, 1), boxes.reshape(-1, 4)), 1)
        maps = crops.reshape(batch * count, 1, self.crop_size, self.crop_size).astype(ms.float32)
        soft = self.roi_align((maps,), rois, ops.zeros_like(image).reshape(-1))
        targets = (soft >= 0.5 * 255).astype(ms.float32)
        return ops.stop_gradient(targets.reshape(batch, regions.shape[1], *soft.shape[2:]))


def paste_mask(probabilities: np.ndarray, box: np.ndarray, height: int, width: int) -> tuple[np.ndarray, int, int]:
    """Resample mask probabilities over a box, bilinearly between pixel centres with zeros around.

    Args:
        probabilities: (rows, columns), of the mask head.
        box: (4,), in pixels of the image.
        height: of the image.
        width: of the image.

    Returns:
        The probabilities of the box and one pixel around it, float32, and the row and column of their first pixel.
    """
    x1, y1, x2, y2 = (float(value) for value in box)
    top, bottom = max(int(np.floor(y1)) - 1, 0), min(int(np.ceil(y2)) + 1, height)
    left, right = max(int(np.floor(x1)) - 1, 0), min(int(np.ceil(x2)) + 1, width)
    rows = _paste_weights(top, bottom, y1, y2, probabilities.shape[0])
    columns = _paste_weights(left, right, x1, x2, probabilities.shape[1])
    return rows @ probabilities.astype(np.float32) @ columns.T, top, left


def _paste_weights(first: int, end: int, low: float, high: float, cells: int) -> np.ndarray:
    """Return the weight of each cell of a mask at each pixel of a range, (pixels, cells)."""
    pixels = np.arange(first, max(end, first)) + 0.5
    # Without extent every pixel reads the mask's centre, as mmdetection has it.
    position = (pixels - low) / (high - low) * cells - 0.5 if high != low else np.full(len(pixels), cells / 2 - 0.5)
    return np.maximum(1 - np.abs(position[:, None] - np.arange(cells)), 0).astype(np.float32)


def paste_masks(
    probabilities: np.ndarray, boxes: np.ndarray, height: int, width: int, threshold: float = 0.5
) -> list[dict]:
    """Return the full-size masks of one image's detections as COCO's run-length encoding.

    Args:
        probabilities: (N, rows, columns).
        boxes: (N, 4), in pixels of the original image.
        height: of the original image.
        width: of the original image.
        threshold: least probability of a mask's pixel.

    Returns:
        For each detection ``{"size": [height, width], "counts": str}``.
    """
    encoded = []
    for mask, box in zip(probabilities, boxes, strict=True):
        soft, top, left = paste_mask(mask, box, height, width)
        encoded.append(encode_rle(soft >= threshold, height, width, top, left))
    return encoded


def encode_rle(bitmap: np.ndarray, height: int, width: int, top: int = 0, left: int = 0) -> dict:
    """Encode a mask as COCO does: lengths of alternating runs, column by column, as text.

    Args:
        bitmap: a part of the mask, bool; the rest is background.
        height: of the whole mask.
        width: of the whole mask.
        top: row of the part's first pixel.
        left: column of the part's first pixel.

    Returns:
        ``{"size": [height, width], "counts": str}``.
    """
    rows, columns = bitmap.shape
    # One row of background below each column separates the runs of neighbouring columns.
    padded = np.zeros((columns, rows + 2), np.int8)
    padded[:, 1:-1] = bitmap.T
    change = np.diff(padded, axis=1)
    column, row = np.nonzero(change == 1)
    starts = (column + left) * height + row + top
    column, row = np.nonzero(change == -1)
    ends = (column + left) * height + row + top
    # Runs that touch across two columns are one.
    apart = starts[1:] > ends[:-1]
    starts = starts[np.concatenate([[True], apart])] if len(starts) else starts
    ends = ends[np.concatenate([apart, [True]])] if len(ends) else ends
    edges = np.stack([starts, ends], 1).reshape(-1)
    counts = np.diff(np.concatenate([[0], edges, [height * width]]))
    if len(counts) > 1 and counts[-1] == 0:
        counts = counts[:-1]
    return {"size": [int(height), int(width)], "counts": _counts_text(counts.tolist())}


def _counts_text(counts: list[int]) -> str:
    """Return COCO's text: from the fourth on, differences to the run of the same kind before, in base 32."""
    text = []
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            digit, value = value & 31, value >> 5
            more = value != (-1 if digit & 16 else 0)
            text.append(chr((digit | 32 if more else digit) + 48))
    return "".join(text)


def decode_rle(rle: dict) -> np.ndarray:
    """Decode COCO's run-length encoding.

    Args:
        rle: ``{"size": [height, width], "counts": str, bytes or a list of run lengths}``.

    Returns:
        (height, width), bool.
    """
    counts = rle["counts"]
    if not isinstance(counts, list):
        counts = _text_counts(counts.decode() if isinstance(counts, bytes) else counts)
    height, width = rle["size"]
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return flat.reshape(width, height).T


def _text_counts(text: str) -> list[int]:
    counts: list[int] = []
    value = shift = 0
    for character in text:
        digit = ord(character) - 48
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            if digit & 16:
                value -= 1 << shift
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value = shift = 0
    return counts
