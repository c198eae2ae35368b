"""Per-image operations on uint8 RGB arrays (H, W, 3).

Random operations receive their generator as an argument, so the caller controls the seed.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from . import native, rand_augment

MEAN = (0.485, 0.456, 0.406)  # ImageNet's, RGB in [0, 1]
STD = (0.229, 0.224, 0.225)
# Mean and standard deviation by the number of channels. Those of grey images are the means of the three, as in timm
# (``adapt_to_chs`` in data/loader.py).
STATISTICS = {3: (MEAN, STD), 1: ((0.449,), (0.226,))}
EVAL_RATIO = 256 / 224  # evaluation: resized shorter edge / side of the crop
TRIES = 10  # draws of a random box before the fallback
ERASED_AREA = (0.02, 1 / 3)  # fraction of the image
ERASED_ASPECT = (0.3, 1 / 0.3)

_PILLOW_MODE = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


MAX_ASPECT = 50  # of images that are resized as a whole before the centre crop


def resize(
    image: np.ndarray,
    size: tuple[int, int],
    interpolation: str,
    part: tuple[int, int, int, int] | None = None,
    mirror: bool = False,
) -> np.ndarray:
    """Resize with the values of Pillow, and return a part of the result.

    Args:
        image: uint8 RGB (H, W, 3).
        size: Height and width in pixels after resizing.
        interpolation: ``bicubic`` or ``bilinear``.
        part: The part to return: (top, left, height, width) in pixels. By default the whole.
        mirror: Whether to flip the part horizontally.
    """
    top, left, height, width = part = part or (0, 0, *size)
    result = native.resize(image, size, part, interpolation, mirror)
    if result is not None:
        return result
    whole = np.asarray(Image.fromarray(image).resize(size[::-1], _PILLOW_MODE[interpolation]))
    result = whole[top : top + height, left : left + width]
    return np.ascontiguousarray(result[:, ::-1] if mirror else result)


def _shorter_edge(height: int, width: int, size: int) -> tuple[int, int]:
    """Return the sides (height, width) after the shorter one is resized to ``size``, as in torchvision."""
    short, long = min(height, width), max(height, width)
    other = int(size * long / short)
    return (size, other) if height <= width else (other, size)


def resize_box(
    image: np.ndarray, box: tuple[float, float, float, float], size: tuple[int, int], interpolation: str
) -> np.ndarray:
    """Resize a part of an image with Pillow.

    Args:
        image: uint8 RGB (H, W, 3).
        box: The part (top, left, bottom, right) in pixels, may have fractions.
        size: Height and width of the output.
        interpolation: ``bicubic`` or ``bilinear``.
    """
    top, left, bottom, right = box
    whole = Image.fromarray(image)
    return np.asarray(whole.resize(size[::-1], _PILLOW_MODE[interpolation], (left, top, right, bottom)))


def random_resized_crop(
    image: np.ndarray,
    size: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    interpolation: str,
    hflip: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Crop a random box, resize it, and flip it horizontally or not.

    Args:
        image: uint8 RGB (H, W, 3).
        size: Side of the output in pixels.
        scale: Bounds of the box's fraction of the area.
        ratio: Bounds of the box's width / height.
        interpolation: ``bicubic``, ``bilinear``, or ``random`` to draw one of them.
        hflip: Probability of the flip.
        rng: Source of randomness.

    Returns:
        uint8 RGB (size, size, 3).
    """
    top, left, height, width = crop_box(image.shape[0], image.shape[1], scale, ratio, rng)
    if interpolation == "random":
        interpolation = ("bilinear", "bicubic")[rng.integers(2)]
    mirror = rng.random() < hflip
    return resize(image[top : top + height, left : left + width], (size, size), interpolation, mirror=mirror)


def crop_box(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Draw the box of torchvision's RandomResizedCrop.

    If ten draws find no box inside the image, the result is the largest central box within ``ratio``.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        scale: Bounds of the box's fraction of the area, drawn uniformly.
        ratio: Bounds of width / height, whose logarithm is drawn uniformly.
        rng: Source of randomness.

    Returns:
        (top, left, height, width) in pixels.
    """
    for _ in range(TRIES):
        w, h = _random_sides(height * width, scale, ratio, rng)
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    w, h = width, height
    if width / height < ratio[0]:
        h = min(height, round(width / ratio[0]))
    elif width / height > ratio[1]:
        w = min(width, round(height * ratio[1]))
    return (height - h) // 2, (width - w) // 2, h, w


def _random_sides(
    area: float, scale: tuple[float, float], ratio: tuple[float, float], rng: np.random.Generator
) -> tuple[int, int]:
    """Draw the sides (a, b) of a box with a random fraction of ``area`` and a random ratio a / b."""
    # As Generator.uniform computes it, at a third of the time under the interpreter's lock.
    target = area * (scale[0] + (scale[1] - scale[0]) * rng.random())
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = math.exp(low + (high - low) * rng.random())
    return round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))


def color_jitter(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Change brightness, contrast and saturation in random order, as torchvision's ColorJitter does.

    Args:
        image: uint8 RGB (H, W, 3).
        strength: Each factor is uniform in [1 - strength, 1 + strength].
        rng: Source of randomness.
    """
    operations = (rand_augment.brightness, rand_augment.contrast, rand_augment.color)
    factors = [rng.uniform(max(0.0, 1 - strength), 1 + strength) for _ in operations]
    for index in rng.permutation(len(operations)):
        image = operations[index](image, factors[index])
    return image


def eval_interpolation(interpolation: str) -> str:
    """Return the evaluation mode for ``DATA.INTERPOLATION``: ``random`` becomes bilinear, as in the paper's code."""
    return "bilinear" if interpolation == "random" else interpolation


def eval_shorter_edge(size: int) -> int:
    """Return the shorter edge in pixels before the centre crop to ``size``."""
    return int(EVAL_RATIO * size)


def resize_and_crop(image: np.ndarray, size: int, interpolation: str, crop: bool) -> np.ndarray:
    """Make an evaluation image with the values of torchvision on Pillow.

    Args:
        image: uint8 RGB (H, W, 3).
        size: Side of the output in pixels.
        interpolation: ``DATA.INTERPOLATION``, see ``eval_interpolation``.
        crop: Resize the shorter edge to 256/224 of ``size`` and crop the centre. Otherwise resize both edges.

    Returns:
        uint8 RGB (size, size, 3).
    """
    interpolation = eval_interpolation(interpolation)
    if not crop:
        return resize(image, (size, size), interpolation)
    sides = _shorter_edge(image.shape[0], image.shape[1], eval_shorter_edge(size))
    if max(sides) > MAX_ASPECT * min(sides):
        return _resize_centre(image, sides, size, interpolation)
    top, left = (round((side - size) / 2) for side in sides)
    return resize(image, sides, interpolation, (top, left, size, size))


def _resize_centre(image: np.ndarray, sides: tuple[int, int], size: int, interpolation: str) -> np.ndarray:
    """Resize the part of a very long image that the centre crop keeps; the whole image could need gigabytes."""
    height, width = image.shape[:2]
    top, left = (round((side - size) / 2) for side in sides)
    vertical, horizontal = height / sides[0], width / sides[1]
    box = (top * vertical, left * horizontal, (top + size) * vertical, (left + size) * horizontal)
    return resize_box(image, box, (size, size), interpolation)


def with_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Return an image, uint8 RGB (H, W, 3), with its 3 channels or as luminance with 1: uint8 (H, W, channels)."""
    return image if channels == 3 else rand_augment.luminance(image)[..., None]


def erased_boxes(height: int, width: int, count: int, rng: np.random.Generator) -> list[tuple[int, int, int, int]]:
    """Draw the boxes of timm's RandomErasing.

    The area of a box is a fraction in ``ERASED_AREA`` divided by the number of boxes; its aspect is in
    ``ERASED_ASPECT``.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        count: Largest number of boxes.
        rng: Source of randomness.

    Returns:
        Up to ``count`` boxes (top, left, height, width) in pixels.
    """
    boxes = []
    number = int(rng.integers(1, count + 1))
    for _ in range(number):
        for _ in range(TRIES):
            h, w = _random_sides(height * width / number, ERASED_AREA, ERASED_ASPECT, rng)
            if h < height and w < width:
                boxes.append((int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w))
                break
    return boxes


def erasing_fill(mode: str, height: int, width: int, rng: np.random.Generator, channels: int = 3) -> np.ndarray:
    """Draw the values that fill an erased box after normalisation.

    Args:
        mode: ``pixel`` for normal noise, ``rand`` for one normal colour, ``const`` for zero.
        height: Height of the box in pixels.
        width: Width of the box in pixels.
        rng: Source of randomness.
        channels: Channels C of the image.

    Returns:
        float32 (C, height, width), or (C, 1, 1) if the box has one colour.
    """
    if mode == "const":
        return np.zeros((channels, 1, 1), np.float32)
    return rng.standard_normal((channels, height, width) if mode == "pixel" else (channels, 1, 1), np.float32)
