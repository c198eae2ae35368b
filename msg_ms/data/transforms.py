"""Per-image operations on uint8 RGB arrays (H, W, 3), and the normalisation that ends both pipelines.

Random operations take their generator as an argument: who calls them decides what the randomness follows from.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from mindspore.dataset import vision
from mindspore.dataset.vision import Inter

MEAN = (0.485, 0.456, 0.406)  # of ImageNet, RGB in [0, 1]
STD = (0.229, 0.224, 0.225)
EVAL_RATIO = 256 / 224  # side that the shorter edge is resized to, over the crop's
CROP_TRIES = 10

# PILCUBIC is Pillow's bicubic bit for bit; MindSpore's bilinear is not Pillow's.
_INTERPOLATION = {"bicubic": Inter.PILCUBIC, "bilinear": Inter.BILINEAR}


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
    box = np.ascontiguousarray(image[top : top + height, left : left + width])
    return vision.Resize((size, size), _INTERPOLATION[interpolation])(box)


def crop_box(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """(top, left, height, width) as torchvision's RandomResizedCrop draws it.

    ``scale`` bounds the box's part of the area, uniformly; ``ratio`` bounds width / height, uniformly in its
    logarithm. Where ten draws find no box inside the image, the largest central one within ``ratio`` is taken.
    """
    for _ in range(CROP_TRIES):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    w, h = width, height
    if width / height < ratio[0]:
        h = min(height, round(width / ratio[0]))
    elif width / height > ratio[1]:
        w = min(width, round(height * ratio[1]))
    return (height - h) // 2, (width - w) // 2, h, w


def resize_and_crop(image: np.ndarray, size: int, interpolation: str, crop: bool) -> np.ndarray:
    """The evaluation picture (size, size, 3), as torchvision makes it on Pillow.

    ``crop``: resize the shorter edge to 256/224 of ``size`` and take the centre; else resize both edges.
    """
    mode = _INTERPOLATION.get(interpolation, Inter.BILINEAR)  # "random" evaluates bilinear, as the paper's code
    if not crop:
        return vision.Resize((size, size), mode)(image)
    image = vision.Resize(int(EVAL_RATIO * size), mode)(image)
    # MindSpore's own CenterCrop lies a pixel off torchvision's where the margin leaves 3 modulo 4.
    top, left = (round((side - size) / 2) for side in image.shape[:2])
    return image[top : top + size, left : left + size]


def normalise() -> list[Any]:
    """MindSpore operations, uint8 (H, W, 3) -> float32 (3, H, W) with ImageNet's mean and deviation."""
    scaled = [[255 * v for v in values] for values in (MEAN, STD)]
    return [vision.Normalize(*scaled), vision.HWC2CHW()]
