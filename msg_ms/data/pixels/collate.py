"""Collate uint8 images into a float32 batch; normalisation, erasing and mixing share one pass."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from . import native
from .mixup import Box
from .transforms import STATISTICS

# Scales and offsets by the number of channels: value * scale + offset is (value / 255 - mean) / deviation.
FACTORS = {
    channels: (
        tuple(1 / (255 * std) for std in stds),
        tuple(-mean / std for mean, std in zip(means, stds, strict=True)),
    )
    for channels, (means, stds) in STATISTICS.items()
}


@dataclass(frozen=True)
class Erasing:
    """Box of an image that is replaced after normalisation.

    Attributes:
        top: First row, in pixels.
        left: First column, in pixels.
        height: Number of rows.
        width: Number of columns.
        fill: New values, float32 (C, height, width) or broadcastable to it.
    """

    top: int
    left: int
    height: int
    width: int
    fill: np.ndarray

    @property
    def area(self) -> tuple[slice, slice, slice]:
        """Slices of the box in an array (C, H, W)."""
        return slice(None), slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


class Buffers:
    """Arrays for batches, used again once nobody else refers to them: new memory costs as much as the normalisation.

    Args:
        limit: How many arrays are kept.
    """

    _UNUSED = 3  # references to an array in the loop below: the list, the variable, the argument

    def __init__(self, limit: int):
        self.limit, self.lock = limit, threading.Lock()
        self.arrays: list[np.ndarray] = []

    def take(self, shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
        """Return an array with any content."""
        with self.lock:
            for array in self.arrays:
                if array.shape == shape and array.dtype == dtype and sys.getrefcount(array) == self._UNUSED:
                    return array
            array = np.empty(shape, dtype)
            if len(self.arrays) < self.limit:
                self.arrays.append(array)
            return array


def collate(
    images: Sequence[np.ndarray],
    erasings: Sequence[Sequence[Erasing]] = (),
    weight: float = 1.0,
    box: Box | None = None,
    buffers: Buffers | None = None,
) -> np.ndarray:
    """Make a batch: normalise the images, then erase boxes, then mix the batch with itself in reverse order.

    Args:
        images: B images of one size, uint8 RGB (H, W, 3) or grey (H, W, 1).
        erasings: For each image the boxes to erase.
        weight: Mixup's weight of the image itself; 1 disables Mixup. Ignored if there is a ``box``.
        box: CutMix's box (top, bottom, left, right) in pixels, exchanged with the image at the mirrored position.
        buffers: Where the result's memory is from; None allocates it.

    Returns:
        float32 (B, C, H, W), normalised by ImageNet's mean and standard deviation, see ``STATISTICS``.
    """
    height, width, channels = images[0].shape
    shape = (len(images), channels, height, width)
    output = np.empty(shape, np.float32) if buffers is None else buffers.take(shape)
    blended = weight < 1.0 and box is None
    _normalize(images, weight if blended else 1.0, output)
    for i, boxes in enumerate(erasings):
        if blended and boxes:
            _erase_blended(output, images[i], boxes, i, weight)
            continue
        for erasing in boxes:
            output[i][erasing.area] = erasing.fill
    if box is not None:
        top, bottom, left, right = box
        output[:, :, top:bottom, left:right] = output[::-1, :, top:bottom, left:right].copy()
    return output


def _normalize(images: Sequence[np.ndarray], weight: float, output: np.ndarray) -> None:
    """Write the normalised images to ``output``, blended with the mirrored batch if ``weight`` is below 1."""
    scale, offset = FACTORS[images[0].shape[2]]
    own = [weight * factor for factor in scale]
    theirs = [(1 - weight) * factor for factor in scale] if weight < 1.0 else None
    if native.blend_images(images, own, theirs, offset, output):
        return
    planes = [cv2.split(image) for image in images]
    for i, channels in enumerate(planes):
        for c, plane in enumerate(channels):
            # OpenCV's weighted sum reads bytes and writes floats, so scaling and blending cost one pass.
            share = theirs[c] if theirs else 0.0
            other = planes[-1 - i][c] if theirs else plane
            cv2.addWeighted(plane, own[c], other, share, offset[c], output[i, c], dtype=cv2.CV_32F)


def _erase_blended(output: np.ndarray, image: np.ndarray, boxes: Sequence[Erasing], i: int, weight: float) -> None:
    """Replace the contribution of image ``i`` to its two blends inside the boxes."""
    scale, offset = (np.array(values, np.float32)[:, None, None] for values in FACTORS[image.shape[2]])
    # One box needs its own pixels only; of several that overlap, the last one counts.
    area = boxes[0].area if len(boxes) == 1 else (slice(None),) * 3
    old = image[area[1:]].transpose(2, 0, 1) * scale + offset
    if len(boxes) == 1:
        change = boxes[0].fill - old
    else:
        erased = old.copy()
        for erasing in boxes:
            erased[erasing.area] = erasing.fill
        change = erased - old
    output[i][area] += np.float32(weight) * change
    output[-1 - i][area] += np.float32(1 - weight) * change
