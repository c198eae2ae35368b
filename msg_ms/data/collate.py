"""From uint8 pictures to a batch of the model's input: normalise, erase and mix while each plane is written once."""

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
    """A box of one picture and what fills it after normalisation: (3, h, w), or broadcast to it."""

    top: int
    left: int
    height: int
    width: int
    fill: np.ndarray

    @property
    def area(self) -> tuple[slice, slice, slice]:
        """The box in (3, H, W)."""
        return slice(None), slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


def collate(
    images: Sequence[np.ndarray],
    erasings: Sequence[Sequence[Erasing]] = (),
    weight: float = 1.0,
    box: Box | None = None,
) -> np.ndarray:
    """Pictures, uint8 (H, W, 3) -> float32 (B, 3, H, W): normalised, then erased, then mixed.

    ``weight`` below 1 without a ``box`` blends each picture with the one at the mirrored place (Mixup); a ``box``
    (top, bottom, left, right) is exchanged with it instead (CutMix).
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
    for i, pictures_erasings in enumerate(erasings):
        for erasing in pictures_erasings:
            if blended:
                _erase_blended(output, planes[i], erasing, i, weight)
            else:
                output[i][erasing.area] = erasing.fill
    if box is not None:
        top, bottom, left, right = box
        output[:, :, top:bottom, left:right] = output[::-1, :, top:bottom, left:right].copy()
    return output


def _erase_blended(output: np.ndarray, planes: Sequence[np.ndarray], erasing: Erasing, i: int, weight: float) -> None:
    """Replace what picture ``i`` gave to both blends inside the box."""
    scale, offset = (np.array(values, np.float32)[:, None, None] for values in (SCALE, OFFSET))
    given = np.stack([plane[erasing.area[1:]] for plane in planes]) * scale + offset
    change = erasing.fill - given
    output[i][erasing.area] += np.float32(weight) * change
    output[-1 - i][erasing.area] += np.float32(1 - weight) * change
