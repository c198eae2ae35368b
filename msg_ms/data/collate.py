"""Collate uint8 images into a float32 batch; normalisation, erasing and mixing share one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .mixup import Box
from .transforms import MEAN, STD

# value * SCALE + OFFSET is (value / 255 - mean) / deviation.
SCALE = tuple(1 / (255 * std) for std in STD)
OFFSET = tuple(-mean / std for mean, std in zip(MEAN, STD, strict=True))


@dataclass(frozen=True)
class Erasing:
    """Box of an image that is replaced after normalisation.

    Attributes:
        top: First row, in pixels.
        left: First column, in pixels.
        height: Number of rows.
        width: Number of columns.
        fill: New values, float32 (3, height, width) or broadcastable to it.
    """

    top: int
    left: int
    height: int
    width: int
    fill: np.ndarray

    @property
    def area(self) -> tuple[slice, slice, slice]:
        """Slices of the box in an array (3, H, W)."""
        return slice(None), slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


def collate(
    images: Sequence[np.ndarray],
    erasings: Sequence[Sequence[Erasing]] = (),
    weight: float = 1.0,
    box: Box | None = None,
) -> np.ndarray:
    """Make a batch: normalise the images, then erase boxes, then mix the batch with itself in reverse order.

    Args:
        images: B images of one size, uint8 RGB (H, W, 3).
        erasings: For each image the boxes to erase.
        weight: Mixup's weight of the image itself; 1 disables Mixup. Ignored if there is a ``box``.
        box: CutMix's box (top, bottom, left, right) in pixels, exchanged with the image at the mirrored position.

    Returns:
        float32 (B, 3, H, W), normalised by ImageNet's mean and standard deviation.
    """
    count, (height, width, _) = len(images), images[0].shape
    planes = [cv2.split(image) for image in images]
    output = np.empty((count, 3, height, width), np.float32)
    blended = weight < 1.0 and box is None
    for i in range(count):
        for c in range(3):
            # OpenCV's weighted sum reads bytes and writes floats, so scaling and blending cost one pass.
            other, share = (planes[-1 - i][c], 1 - weight) if blended else (planes[i][c], 0.0)
            own = 1.0 - share
            cv2.addWeighted(
                planes[i][c], own * SCALE[c], other, share * SCALE[c], OFFSET[c], output[i, c], dtype=cv2.CV_32F
            )
    for i, boxes in enumerate(erasings):
        for erasing in boxes:
            if blended:
                _erase_blended(output, planes[i], erasing, i, weight)
            else:
                output[i][erasing.area] = erasing.fill
    if box is not None:
        top, bottom, left, right = box
        output[:, :, top:bottom, left:right] = output[::-1, :, top:bottom, left:right].copy()
    return output


def _erase_blended(output: np.ndarray, planes: Sequence[np.ndarray], erasing: Erasing, i: int, weight: float) -> None:
    """Replace the contribution of image ``i`` to its two blends inside the box."""
    scale, offset = (np.array(values, np.float32)[:, None, None] for values in (SCALE, OFFSET))
    old = np.stack([plane[erasing.area[1:]] for plane in planes]) * scale + offset
    change = erasing.fill - old
    output[i][erasing.area] += np.float32(weight) * change
    output[-1 - i][erasing.area] += np.float32(1 - weight) * change
