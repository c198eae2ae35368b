"""Ground-truth masks cropped to their boxes, and masks of detections at full size, in NumPy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from . import native
from .rle import decode_columns, encode_rle

CROP_SIZE = 112


def _bin_samples(low: float, high: float, bins: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels that RoIAlign's bins read along one axis (scale 1, aligned, adaptive sampling).

    Args:
        low: start of the box in pixels.
        high: its end.
        bins: bins of the box.
        size: pixels of the axis.

    Returns:
        The pixels and their shares of each bin, (bins, 2 * samples) each.
    """
    start, length = float(low) - 0.5, (float(high) - float(low)) / bins
    samples = max(math.ceil(length), 0)
    position = start + length * (np.arange(bins)[:, None] + (np.arange(samples) + 0.5) / max(samples, 1))
    used = (position >= -1) & (position <= size)
    inside = np.clip(position, 0, size - 1)
    lower = np.floor(inside).astype(np.int64)
    fraction = inside - lower
    shares = np.concatenate([used * (1 - fraction), used * fraction], 1) / max(samples, 1)
    return np.concatenate([lower, np.minimum(lower + 1, size - 1)], 1), shares


def crop_mask(
    bitmap: np.ndarray, rows: np.ndarray, columns: np.ndarray, box: np.ndarray, size: int = CROP_SIZE
) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """Crop the mask ``bitmap[rows][:, columns]`` to its box, without building it.

    An axis on which the box and a pixel around it fit into the crop keeps the mask's own pixels: targets of small
    objects are exact. A longer axis is resampled to the crop's size.

    Args:
        bitmap: (H, W), 0 or 1.
        rows: the bitmap's row of each row of the mask, (height,).
        columns: the bitmap's column of each column of the mask, (width,).
        box: (4,), in pixels of the mask.
        size: side of a crop.

    Returns:
        The crop (size, size), uint8, 255 for 1, and the box in pixels of the mask that it shows.
    """
    x1, y1, x2, y2 = (float(value) for value in box)
    down, own_rows, top, bottom = _crop_axis(y1, y2, size, rows)
    across, own_columns, left, right = _crop_axis(x1, x2, size, columns)
    crop = across.apply(down.apply(bitmap[own_rows, own_columns].astype(np.float64)).T).T
    # Halves are common: the edge of a mask in the middle of a bin. They must not depend on the order of a sum.
    return (255 * crop + (0.5 + 1e-3)).astype(np.uint8), (left, top, right, bottom)


def crop_encoded_masks(
    counts: Sequence[bytes],
    height: int,
    rows: np.ndarray,
    columns: np.ndarray,
    boxes: np.ndarray,
    crops: np.ndarray,
    frames: np.ndarray,
) -> None:
    """Crop an image's masks, given as run lengths, to their boxes as ``crop_mask`` does.

    Args:
        counts: Compressed run lengths of each mask.
        height: Height of the masks.
        rows: The mask's row of each row of the image.
        columns: The mask's column of each column of the image.
        boxes: (G, 4), in pixels of the image.
        crops: Where the crops are written, uint8 (G, size, size).
        frames: Where the boxes are written that they show, float32 (G, 4).
    """
    if native.crop_masks(counts, height, rows, columns, boxes, crops, frames):
        return
    for k, (runs, box) in enumerate(zip(counts, boxes, strict=True)):
        low, high = _shown_pixels(box[0], box[2], len(columns), crops.shape[-1])
        ends = columns[low], columns[high - 1]  # from right to left in a mirrored image
        left, right = int(min(ends)), int(max(ends)) + 1
        bitmap = decode_columns(runs, height, left, right)
        crops[k], frames[k] = crop_mask(bitmap, rows, columns - left, box, crops.shape[-1])


def _shown_pixels(low: float, high: float, pixels: int, size: int) -> tuple[int, int]:
    """Return the first pixel along an axis that ``crop_mask`` may read, and the one after the last.

    Args:
        low: start of the box in pixels of the mask.
        high: its end.
        pixels: pixels of the mask along the axis.
        size: side of the crop.
    """
    start = _crop_start(low, size, pixels)
    return start, min(max(start + size, math.ceil(high) + 1), pixels)


def _crop_start(low: float, size: int, pixels: int) -> int:
    return min(max(math.floor(low) - 1, 0), max(pixels - size, 0))


class _Band:
    """A matrix with its weights near the diagonal, in blocks of rows.

    Small products cost a tenth of the whole one's time, and OpenBLAS does not divide them between threads: the data
    workers are the threads.

    Args:
        places: The columns with weight of each row, (size, samples).
        shares: Their weights, (size, samples).
        columns: Number of columns.
    """

    BLOCKS = (16, 8)  # rows, for values with few columns and with many
    MANY = 256

    def __init__(self, places: np.ndarray, shares: np.ndarray, columns: int):
        size = len(places)
        self.weights = np.zeros((size, columns))
        np.add.at(self.weights, (np.arange(size)[:, None], places), shares)
        none = np.zeros(size, np.int64)
        self.first: np.ndarray = places.min(1) if places.size else none
        self.last: np.ndarray = places.max(1) if places.size else none

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Return the product of the matrix and values (columns, n): (size, n)."""
        output = np.empty((len(self.weights), values.shape[1]))
        size = self.BLOCKS[values.shape[1] > self.MANY]
        starts = np.arange(0, len(output), size)
        first, last = np.minimum.reduceat(self.first, starts), np.maximum.reduceat(self.last, starts)
        for start, begin, end in zip(starts.tolist(), first.tolist(), (last + 1).tolist(), strict=True):
            rows = slice(start, start + size)
            np.matmul(self.weights[rows, begin:end], values[begin:end], out=output[rows])
        return output


class _Pixels:
    """A matrix that selects rows of its operand."""

    def __init__(self, rows: np.ndarray):
        self.rows = rows

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Return the selected rows."""
        return values[self.rows]


def _crop_axis(low: float, high: float, size: int, source: np.ndarray) -> tuple[_Band | _Pixels, slice, float, float]:
    """Return the weights of a crop along one axis.

    Args:
        low: start of the box in pixels of the mask.
        high: its end.
        size: side of the crop.
        source: the bitmap's pixel of each pixel of the mask, (pixels,).

    Returns:
        Weights (size, n) of n pixels of the bitmap, which pixels they are, and the crop's start and end in pixels of
        the mask.
    """
    pixels = len(source)
    start = _crop_start(low, size, pixels)
    if min(math.ceil(high) + 1, pixels) - start <= size:
        # Beyond the image its last pixel repeats, as RoIAlign has it.
        own = source[np.minimum(np.arange(start, start + size), pixels - 1)]
        first, last = int(own.min()), int(own.max())
        return _Pixels(own - first), slice(first, last + 1), start, start + size
    places, shares = _bin_samples(low, high, size, pixels)
    own = source[places]
    first, last = (int(own.min()), int(own.max())) if own.size else (0, 0)
    return _Band(own - first, shares, last - first + 1), slice(first, last + 1), low, high


def paste_mask(probabilities: np.ndarray, box: np.ndarray, height: int, width: int) -> tuple[np.ndarray, int, int]:
    """Resample mask probabilities over a box, bilinearly between pixel centres with zeros around.

    Args:
        probabilities: (rows, columns), of the mask head.
        box: (4,), in pixels of the image.
        height: of the image.
        width: of the image.

    Returns:
        The probabilities of the box and one pixel around it, float64, and the row and column of their first pixel.
    """
    x1, y1, x2, y2 = (float(value) for value in box)
    top, bottom = max(int(np.floor(y1)) - 1, 0), min(int(np.ceil(y2)) + 1, height)
    left, right = max(int(np.floor(x1)) - 1, 0), min(int(np.ceil(x2)) + 1, width)
    rows = _paste_weights(top, bottom, y1, y2, probabilities.shape[0])
    columns = _paste_weights(left, right, x1, x2, probabilities.shape[1])
    return rows @ probabilities.astype(np.float64) @ columns.T, top, left


def _paste_weights(first: int, end: int, low: float, high: float, cells: int) -> np.ndarray:
    """Return the weight of each cell of a mask at each pixel of a range, (pixels, cells)."""
    pixels = np.arange(first, max(end, first)) + 0.5
    # Without extent every pixel reads the mask's centre, as mmdetection has it.
    position = (pixels - low) / (high - low) * cells - 0.5 if high != low else np.full(len(pixels), cells / 2 - 0.5)
    return np.maximum(1 - np.abs(position[:, None] - np.arange(cells)), 0)


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
    runs = native.paste_masks(probabilities, boxes, height, width, threshold)
    if runs is not None:
        return [{"size": [int(height), int(width)], "counts": counts} for counts in runs]
    encoded = []
    for mask, box in zip(probabilities, boxes, strict=True):
        soft, top, left = paste_mask(mask, box, height, width)
        encoded.append(encode_rle(soft >= threshold, height, width, top, left))
    return encoded
