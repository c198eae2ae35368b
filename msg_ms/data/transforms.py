"""Per-image operations of training and evaluation, as MindSpore dataset transforms."""

from __future__ import annotations

from typing import Any

import numpy as np
from mindspore.dataset import vision
from mindspore.dataset.vision import Inter

from ..config import AugConfig

MEAN = (0.485, 0.456, 0.406)  # of ImageNet, RGB in [0, 1]
STD = (0.229, 0.224, 0.225)
EVAL_RATIO = 256 / 224  # side that the shorter edge is resized to, over the crop's

# PILCUBIC is Pillow's bicubic bit for bit; the other modes of MindSpore are not Pillow's.
_INTERPOLATION = {"bicubic": Inter.PILCUBIC, "bilinear": Inter.BILINEAR}


def train_transforms(img_size: int, interpolation: str, aug: AugConfig) -> list[Any]:
    """Encoded image -> float32 (3, img_size, img_size): random resized crop, flip, normalisation."""

    def crop(mode: Inter) -> Any:
        return vision.RandomCropDecodeResize(img_size, aug.crop_scale, aug.crop_ratio, mode)

    if interpolation == "random":
        from mindspore.dataset.transforms import RandomChoice

        first = RandomChoice([crop(mode) for mode in _INTERPOLATION.values()])
    else:
        first = crop(_INTERPOLATION[interpolation])
    return [first, vision.RandomHorizontalFlip(aug.hflip), *normalise()]


def eval_transforms(img_size: int, interpolation: str, crop: bool) -> list[Any]:
    """Encoded image -> float32 (3, img_size, img_size), without randomness.

    ``crop``: resize the shorter edge to 256/224 of ``img_size`` and take the centre; else resize both edges.
    """
    return [*eval_pixels(img_size, interpolation, crop), *normalise()]


def eval_pixels(img_size: int, interpolation: str, crop: bool) -> list[Any]:
    """The part of :func:`eval_transforms` before normalisation: encoded image -> uint8 (img_size, img_size, 3)."""
    mode = _INTERPOLATION.get(interpolation, Inter.BILINEAR)  # "random" evaluates bilinear, as the paper's code
    if not crop:
        return [vision.Decode(), vision.Resize((img_size, img_size), mode)]
    return [vision.Decode(), vision.Resize(int(EVAL_RATIO * img_size), mode), _CenterCrop(img_size)]


def normalise() -> list[Any]:
    """uint8 (H, W, 3) -> float32 (3, H, W) with ImageNet's mean and deviation."""
    scaled = [[255 * v for v in values] for values in (MEAN, STD)]
    return [vision.Normalize(*scaled), vision.HWC2CHW()]


class _CenterCrop:
    """torchvision's centre; MindSpore's own CenterCrop lies a pixel off where the margin leaves 3 modulo 4."""

    def __init__(self, size: int):
        self.size = size

    def __call__(self, image: np.ndarray) -> np.ndarray:
        top, left = (round((side - self.size) / 2) for side in image.shape[:2])
        return image[top : top + self.size, left : left + self.size]
