"""Preprocessing of evaluation images, its inverse, and its description for other programs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...config import Config
from .transforms import STATISTICS, eval_interpolation, eval_shorter_edge

PREPROCESSING_KEY = "preprocessing"  # in a checkpoint's metadata: JSON of the steps, for other programs


def normalization(channels: int) -> dict[str, str]:
    """Describe the normalisation, (value / 255 - mean) / std, as text.

    Args:
        channels: Channels of the model's images.

    Returns:
        The channels by Pillow's name, RGB or L, their means and standard deviations. Empty for other numbers of
        channels, which image files do not have.
    """
    if channels not in STATISTICS:
        return {}
    mean, std = (",".join(map(str, values)) for values in STATISTICS[channels])
    return {"channels": {3: "RGB", 1: "L"}[channels], "mean": mean, "std": std}


@dataclass(frozen=True)
class Preprocessing:
    """Resizing and cropping of evaluation images; ``msg_ms.data.pixels.collate.collate`` normalises them.

    Attributes:
        size: Side of the model's input in pixels.
        crop: Whether to crop the centre of a larger image (``TEST.CROP``).
        interpolation: ``DATA.INTERPOLATION``.
    """

    size: int
    crop: bool = True
    interpolation: str = "bicubic"

    @classmethod
    def of(cls, config: Config) -> Preprocessing:
        """Read the preprocessing from a configuration."""
        return cls(config.data.img_size, config.test.crop, config.data.interpolation)

    def as_metadata(self) -> dict[str, str]:
        """Describe the steps as text; ``normalization`` describes the step that follows."""
        side = f"{self.size},{self.size}"
        steps = {"resize": side}
        if self.crop:
            steps = {"resize_shorter_edge": str(eval_shorter_edge(self.size)), "center_crop": side}
        return {**steps, "interpolation": eval_interpolation(self.interpolation)}


def denormalize(image: np.ndarray) -> np.ndarray:
    """Undo the normalisation of an image.

    Args:
        image: Normalised RGB (3, H, W) or grey (1, H, W).

    Returns:
        uint8 RGB (H, W, 3); values outside of its range are clipped.
    """
    mean, std = STATISTICS[len(image)]
    values = image.transpose(1, 2, 0) * std + mean
    return np.repeat(np.clip(values * 255 + 0.5, 0, 255).astype(np.uint8), 3 // len(image), -1)
