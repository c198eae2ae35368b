"""Batches that cross the bus as uint8: the device normalises, erases and mixes them.

Order and values are those of ``msg_ms.data.pixels.collate``, up to rounding. A batch has a quarter of the bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from ...config import AugConfig
from .collate import FACTORS, Buffers, Erasing
from .mixup import Box

SIDES, MIXING = 4, 5  # numbers of an erased box before its colour, and of a batch


def can_erase_on_device(aug: AugConfig) -> bool:
    """Return whether erased boxes have one colour each; noise would be as many bytes as the float32 image."""
    return aug.reprob == 0 or aug.remode != "pixel"


def stack(images: Sequence[np.ndarray], buffers: Buffers | None = None) -> np.ndarray:
    """Stack B images uint8 (H, W, C) to (B, H, W, C), in the memory of ``buffers`` if there are any."""
    shape = (len(images), *images[0].shape)
    output = np.empty(shape, np.uint8) if buffers is None else buffers.take(shape, np.uint8)
    for target, image in zip(output, images, strict=True):
        target[:] = image
    return output


def erasing_rows(erasings: Sequence[Sequence[Erasing]], count: int, channels: int = 3) -> np.ndarray:
    """Return the erased boxes of B images as numbers.

    Args:
        erasings: For each image up to ``count`` boxes of one colour each.
        count: Boxes per image; the missing ones are empty.
        channels: Channels C of the images.

    Returns:
        float32 (B, count, 4 + C): top, bottom, left, right in pixels, and the colour after normalisation.
    """
    rows = np.zeros((len(erasings), count, SIDES + channels), np.float32)
    for image, boxes in zip(rows, erasings, strict=True):
        for row, box in zip(image, boxes, strict=False):
            row[:SIDES] = box.top, box.top + box.height, box.left, box.left + box.width
            row[SIDES:] = box.fill.reshape(channels)
    return rows


def mixing_row(weight: float, box: Box | None) -> np.ndarray:
    """Return the mixing of a batch, with the arguments of ``collate``: float32 (5,).

    The first number is Mixup's weight of the image itself, 1 with a box. The others are CutMix's box (top, bottom,
    left, right) in pixels, empty without one.
    """
    return np.array([weight, 0, 0, 0, 0] if box is None else [1, *box], np.float32)


class DeviceCollate(nn.Cell):
    """Normalise uint8 images, then erase boxes, then mix the batch with itself in reverse order."""

    def __init__(self):
        super().__init__()
        colour, grey = ([Tensor(values, ms.float32) for values in FACTORS[channels]] for channels in (3, 1))
        self.scale, self.offset = colour
        self.grey_scale, self.grey_offset = grey

    def construct(self, images: Tensor, mixing: Tensor | None = None, erasings: Tensor | None = None) -> Tensor:
        """Return the batch float32 (B, C, H, W).

        Args:
            images: uint8 (B, H, W, C), C = 3 or 1.
            mixing: See ``mixing_row``; None for no mixing.
            erasings: See ``erasing_rows``; None for no boxes.
        """
        batch, height, width, channels = images.shape
        scale, offset = (self.scale, self.offset) if channels == 3 else (self.grey_scale, self.grey_offset)
        x = images.astype(ms.float32) * scale + offset
        rows = ops.arange(height).astype(ms.float32).reshape(1, height, 1, 1)
        columns = ops.arange(width).astype(ms.float32).reshape(1, 1, width, 1)
        if erasings is not None:
            for i in range(erasings.shape[1]):
                box = erasings[:, i].reshape(batch, SIDES + channels, 1, 1, 1)
                inside = _inside(rows, columns, box[:, 0], box[:, 1], box[:, 2], box[:, 3])
                x = ops.where(inside, erasings[:, i, SIDES:].reshape(batch, 1, 1, channels), x)
        if mixing is not None:
            inside = _inside(rows, columns, mixing[1], mixing[2], mixing[3], mixing[4])
            own = mixing[0] * (1.0 - inside.astype(ms.float32))
            x = x * own + ops.flip(x, (0,)) * (1.0 - own)
        return x.transpose(0, 3, 1, 2)


def _inside(rows: Tensor, columns: Tensor, top: Tensor, bottom: Tensor, left: Tensor, right: Tensor) -> Tensor:
    vertical = ops.logical_and(rows >= top, rows < bottom)
    return ops.logical_and(vertical, ops.logical_and(columns >= left, columns < right))
