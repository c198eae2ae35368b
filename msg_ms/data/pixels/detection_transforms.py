"""The transforms of Swin Transformer's detection recipe, as mmdetection computes them.

A training image is mirrored or not, then resized to a drawn length of its short side. Half of the images are resized,
cropped and resized again instead. An ``ImageTransform`` holds the drawn numbers: all sizes follow without pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ...config import DetectionConfig
from .collate import FACTORS

DRAWS = 8  # uniform numbers of a transform
Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class ImageTransform:
    """How one image becomes a sample.

    Attributes:
        original: Height and width of the image.
        flip: Whether it is mirrored first.
        first: Height and width before the crop; None without a crop.
        crop: The crop's top, left, height and width; None without a crop.
        size: Final height and width.
    """

    original: Size
    flip: bool
    first: Size | None
    crop: tuple[int, int, int, int] | None
    size: Size

    @property
    def uncropped(self) -> Size:
        """Height and width of the pixels that the last resizing starts from."""
        return self.crop[2:] if self.crop is not None else self.original

    @property
    def scale_factors(self) -> tuple[float, float]:
        """The last resizing's factors in x and y; they differ by the rounding of sizes."""
        (height, width), (new_height, new_width) = self.uncropped, self.size
        return new_width / width, new_height / height

    def within(self, canvas: Size) -> ImageTransform:
        """Return the transform with a smaller final size if the canvas is too small for it."""
        if self.size[0] <= canvas[0] and self.size[1] <= canvas[1]:
            return self
        return ImageTransform(self.original, self.flip, self.first, self.crop, fitted(self.uncropped, canvas))


@dataclass(frozen=True)
class ImageTransforms:
    """The transforms of many images, as columns.

    Attributes:
        originals: Heights and widths, int64 (N, 2).
        flip: bool (N,).
        cropped: Which images are cropped, bool (N,).
        first: As ``ImageTransform.first``, int64 (N, 2).
        crop: As ``ImageTransform.crop``, int64 (N, 4).
        sizes: As ``ImageTransform.size``, int64 (N, 2).
    """

    originals: np.ndarray
    flip: np.ndarray
    cropped: np.ndarray
    first: np.ndarray
    crop: np.ndarray
    sizes: np.ndarray

    def __getitem__(self, index: int) -> ImageTransform:
        original, size = (tuple(array[index].tolist()) for array in (self.originals, self.sizes))
        first, crop = (
            tuple(array[index].tolist()) if self.cropped[index] else None for array in (self.first, self.crop)
        )
        return ImageTransform(original, bool(self.flip[index]), first, crop, size)


def rescaled(sizes: np.ndarray, short: np.ndarray | int, long: int) -> np.ndarray:
    """Return sizes after resizing with the aspect ratio kept.

    Args:
        sizes: Heights and widths, (N, 2).
        short: Length that the short side should have, one or (N,).
        long: Most pixels of the long side.

    Returns:
        Heights and widths, int64 (N, 2), rounded as mmcv rounds.
    """
    factors = np.minimum(long / sizes.max(-1), short / sizes.min(-1))
    return np.maximum((sizes * factors[..., None] + 0.5).astype(np.int64), 1)


def fitted(size: Size, canvas: Size) -> Size:
    """Return the largest size with the same aspect ratio on a canvas."""
    factor = min(canvas[0] / size[0], canvas[1] / size[1])
    return max(int(size[0] * factor + 0.5), 1), max(int(size[1] * factor + 0.5), 1)


def draw_transforms(sizes: np.ndarray, draws: np.ndarray, config: DetectionConfig) -> ImageTransforms:
    """Return the training transforms of images.

    Args:
        sizes: Heights and widths, (N, 2).
        draws: Uniform numbers in [0, 1), (N, ``DRAWS``).
        config: The section ``DETECTION``.
    """
    flip, policy, short, first_short, *crop_draws = draws.T
    cropped = policy < config.crop
    first = rescaled(sizes, _choice(config.first_short_sides, first_short), config.long_side)
    smallest, largest = (np.minimum(first, side) for side in config.crop_sides)
    height, width = (smallest + (np.stack(crop_draws[:2], 1) * (largest - smallest + 1)).astype(np.int64)).T
    top, left = ((first[:, i] - side + 1) * crop_draws[2 + i] for i, side in enumerate((height, width)))
    crop = np.stack([top.astype(np.int64), left.astype(np.int64), height, width], 1)
    before = np.where(cropped[:, None], crop[:, 2:], sizes)
    final = rescaled(before, _choice(config.short_sides, short), config.long_side)
    return ImageTransforms(np.asarray(sizes, np.int64), flip < config.flip, cropped, first, crop, final)


def _choice(values: Sequence[int], draws: np.ndarray) -> np.ndarray:
    return np.array(values, np.int64)[(draws * len(values)).astype(np.int64)]


def eval_transform(size: Size, config: DetectionConfig) -> ImageTransform:
    """Return the transform of an evaluation image of a height and width."""
    final = rescaled(np.array(size), config.test_short_side, config.test_long_side)
    height, width = final.tolist()
    return ImageTransform((size[0], size[1]), False, None, None, (height, width))


def transform_image(image: np.ndarray, transform: ImageTransform) -> np.ndarray:
    """Return the resized image.

    Args:
        image: uint8 (H, W, 3), as large as ``transform.original``.
        transform: The drawn numbers.

    Returns:
        uint8 (height, width, 3), ``transform.size``.
    """
    if transform.flip:
        image = cv2.flip(image, 1)
    if transform.crop is not None and transform.first is not None:
        top, left, height, width = transform.crop
        image = _resize(image, transform.first, cv2.INTER_LINEAR)[top : top + height, left : left + width]
    return _resize(image, transform.size, cv2.INTER_LINEAR)


def _resize(image: np.ndarray, size: Size, interpolation: int) -> np.ndarray:
    return cv2.resize(image, size[::-1], interpolation=interpolation)


def source_pixels(transform: ImageTransform) -> tuple[np.ndarray, np.ndarray]:
    """Return where the pixels of a transformed mask come from; ``mask[rows][:, columns]`` is the transformed mask.

    Masks are resized to the nearest pixel, which acts on rows and columns separately.

    Args:
        transform: The drawn numbers.

    Returns:
        Rows (height,) and columns (width,) of the original mask, int32.
    """
    rows, columns = (np.arange(side, dtype=np.int32) for side in transform.original)
    columns = columns[::-1] if transform.flip else columns
    if transform.crop is not None and transform.first is not None:
        top, left, height, width = transform.crop
        rows = _nearest(rows, transform.first[0])[top : top + height]
        columns = _nearest(columns, transform.first[1])[left : left + width]
    return _nearest(rows, transform.size[0]), _nearest(columns, transform.size[1])


def _nearest(line: np.ndarray, length: int) -> np.ndarray:
    return cv2.resize(np.ascontiguousarray(line)[None], (length, 1), interpolation=cv2.INTER_NEAREST)[0]


def transform_boxes(boxes: np.ndarray, transform: ImageTransform) -> tuple[np.ndarray, np.ndarray]:
    """Return transformed boxes, and which of them remain.

    Args:
        boxes: (N, 4), float32, in pixels of the original image.
        transform: The drawn numbers.

    Returns:
        The boxes that remain, (M, 4), float32, clipped to the image; and which of the N they are, bool (N,). Only a
        crop drops boxes: those that it leaves without area.
    """
    boxes, kept = np.array(boxes, np.float32).reshape(-1, 4), np.ones(len(boxes), bool)
    if transform.flip:
        boxes[:, [0, 2]] = transform.original[1] - boxes[:, [2, 0]]
    if transform.crop is not None and transform.first is not None:
        boxes = _scale_boxes(boxes, transform.original, transform.first)
        top, left, height, width = transform.crop
        boxes = _clip(boxes - np.array([left, top, left, top], np.float32), (height, width))
        kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        boxes = boxes[kept]
    return _scale_boxes(boxes, transform.uncropped, transform.size), kept


def _scale_boxes(boxes: np.ndarray, before: Size, after: Size) -> np.ndarray:
    factors = np.array([after[1] / before[1], after[0] / before[0]] * 2, np.float32)
    return _clip(boxes * factors, after)


def _clip(boxes: np.ndarray, size: Size) -> np.ndarray:
    return np.clip(boxes, np.float32(0), np.array([size[1], size[0]] * 2, np.float32))


def place(image: np.ndarray, output: np.ndarray) -> None:
    """Write the normalised image into the top left corner of a canvas of zeros.

    Args:
        image: uint8 (H, W, 3).
        output: float32 (3, height, width), at least as large as the image.
    """
    height, width, channels = image.shape
    for channel, (plane, scale, offset) in enumerate(zip(cv2.split(image), *FACTORS[channels], strict=True)):
        # OpenCV's weighted sum reads bytes and writes floats to their place, so that normalisation is one pass.
        target = output[channel, :height, :width]
        cv2.addWeighted(plane, scale, plane, 0, offset, target, dtype=cv2.CV_32F)
