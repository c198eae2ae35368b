"""Per-image operations on uint8 RGB arrays (H, W, 3), and what turns them into the model's input.

Random operations take their generator as an argument: who calls them decides what the randomness follows from.
"""

from __future__ import annotations

import functools
import io
import math

import cv2
import numpy as np
from mindspore.dataset import vision
from mindspore.dataset.vision import Inter
from PIL import Image

from . import rand_augment

MEAN = (0.485, 0.456, 0.406)  # of ImageNet, RGB in [0, 1]
STD = (0.229, 0.224, 0.225)
EVAL_RATIO = 256 / 224  # side that the shorter edge is resized to, over the crop's
TRIES = 10  # draws of a box before a random crop or an erasing gives up
ERASED_AREA = (0.02, 1 / 3)  # of the picture
ERASED_ASPECT = (0.3, 1 / 0.3)

# PILCUBIC is Pillow's bicubic bit for bit (as of Pillow 11); MindSpore's bilinear is not Pillow's.
_RESIZE_MODE = {"bicubic": Inter.PILCUBIC, "bilinear": Inter.BILINEAR}


def decode(encoded: bytes) -> np.ndarray:
    """RGB (H, W, 3) of an encoded picture, as Pillow gives it; grey, palette, alpha and CMYK pictures are converted.

    Whole JPEG files of one or three components go through OpenCV: the same values in two thirds of the time, and less
    than half of what MindSpore's own operator takes. Raises one of Pillow's errors for what is no whole picture.
    """
    if _is_plain_jpeg(encoded):
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
        if image is not None:
            return image
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image.convert("RGB"))


def _is_plain_jpeg(encoded: bytes) -> bool:
    """Whether this is a JPEG of one or three components that ends with the marker of its end."""
    if encoded[:2] != b"\xff\xd8" or b"\xff\xd9" not in encoded[-64:]:
        return False
    position = 2
    while position + 10 <= len(encoded) and encoded[position] == 0xFF:
        marker = encoded[position + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of a frame; the rest are tables
            return encoded[position + 9] in (1, 3)
        position += 2 + int.from_bytes(encoded[position + 2 : position + 4], "big")
    return False


@functools.cache
def _resizer(size: int | tuple[int, int], interpolation: str) -> vision.Resize:
    return vision.Resize(size, _RESIZE_MODE[interpolation])


def resize(image: np.ndarray, size: int | tuple[int, int], interpolation: str) -> np.ndarray:
    """To (height, width), or with one number the shorter edge to that and the other in proportion."""
    return _resizer(size, interpolation)(np.ascontiguousarray(image))


def random_resized_crop(
    image: np.ndarray,
    size: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    interpolation: str,
    rng: np.random.Generator,
) -> np.ndarray:
    """A random box of the image, resized to (size, size, 3); ``interpolation`` "random" draws that as well."""
    top, left, height, width = crop_box(*image.shape[:2], scale, ratio, rng)
    if interpolation == "random":
        interpolation = ("bilinear", "bicubic")[rng.integers(2)]
    return resize(image[top : top + height, left : left + width], (size, size), interpolation)


def crop_box(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """(top, left, height, width) as torchvision's RandomResizedCrop draws it.

    ``scale`` bounds the box's part of the area, uniformly; ``ratio`` bounds width / height, uniformly in its
    logarithm. Where ten draws find no box inside the image, the largest central one within ``ratio`` is taken.
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
    """(a, b) of a box with a random part of ``area`` and a random ratio a / b."""
    target = area * rng.uniform(*scale)
    aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
    return round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))


def color_jitter(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """torchvision's ColorJitter: brightness, contrast, saturation by factors in 1 -+ ``strength``, in random order."""
    operations = (rand_augment.brightness, rand_augment.contrast, rand_augment.color)
    factors = [rng.uniform(max(0.0, 1 - strength), 1 + strength) for _ in operations]
    for index in rng.permutation(len(operations)):
        image = operations[index](image, factors[index])
    return image


def resize_and_crop(image: np.ndarray, size: int, interpolation: str, crop: bool) -> np.ndarray:
    """The evaluation picture (size, size, 3), as torchvision makes it on Pillow.

    ``crop``: resize the shorter edge to 256/224 of ``size`` and take the centre; else resize both edges.
    """
    interpolation = "bilinear" if interpolation == "random" else interpolation  # as the paper's code
    if not crop:
        return resize(image, (size, size), interpolation)
    image = resize(image, int(EVAL_RATIO * size), interpolation)
    # MindSpore's own CenterCrop lies a pixel off torchvision's where the margin leaves 3 modulo 4.
    top, left = (round((side - size) / 2) for side in image.shape[:2])
    return image[top : top + size, left : left + size]


def erased_boxes(height: int, width: int, count: int, rng: np.random.Generator) -> list[tuple[int, int, int, int]]:
    """Up to ``count`` boxes (top, left, height, width) to erase, drawn as timm's RandomErasing draws them.

    A box has a part of ``ERASED_AREA`` over the number of boxes, and an aspect in ``ERASED_ASPECT``.
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


def erasing_fill(mode: str, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """What fills an erased box after normalisation: "pixel" normal noise, "rand" a normal colour, "const" zero."""
    if mode == "const":
        return np.zeros((3, 1, 1), np.float32)
    return rng.standard_normal((3, height, width) if mode == "pixel" else (3, 1, 1), np.float32)
