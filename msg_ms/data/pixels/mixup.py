"""Mixup, CutMix and their soft labels, as in timm's batch mode: a batch is mixed with itself in reverse order."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...config import AugConfig
from ...errors import UserError

Box = tuple[int, int, int, int]  # top, bottom, left, right


@dataclass(frozen=True)
class Mixup:
    """Random Mixup or CutMix of a batch: image i is mixed with image B - 1 - i.

    Attributes:
        mixup: Alpha of Mixup's Beta distribution; 0 disables Mixup.
        cutmix: Alpha of CutMix's Beta distribution; 0 disables CutMix.
        minmax: Bounds for the sides of CutMix's box as fractions of the image's sides. They replace the Beta
            distribution.
        probability: Probability that a batch is mixed at all.
        switch_probability: Probability of CutMix if both are enabled.
    """

    mixup: float
    cutmix: float
    minmax: tuple[float, float] | None
    probability: float
    switch_probability: float

    def draw(self, height: int, width: int, rng: np.random.Generator) -> tuple[float, Box | None]:
        """Draw the mixing of one batch.

        Args:
            height: Height of the images in pixels.
            width: Width of the images in pixels.
            rng: Source of randomness.

        Returns:
            The weight of the image itself (1 leaves the batch unchanged), and CutMix's box or None for Mixup.
        """
        if rng.random() >= self.probability:
            return 1.0, None
        cutmix = self.cutmix > 0 and (self.mixup == 0 or rng.random() < self.switch_probability)
        alpha = self.cutmix if cutmix else self.mixup
        weight = rng.beta(alpha, alpha)
        if not cutmix:
            return weight, None
        top, bottom, left, right = box = self._box(height, width, weight, rng)
        return 1 - (bottom - top) * (right - left) / (height * width), box

    def _box(self, height: int, width: int, weight: float, rng: np.random.Generator) -> Box:
        if self.minmax is not None:
            h, w = (
                int(rng.integers(int(side * self.minmax[0]), int(side * self.minmax[1]))) for side in (height, width)
            )
            top, left = int(rng.integers(height - h)), int(rng.integers(width - w))
            return top, top + h, left, left + w
        fraction = math.sqrt(1 - weight)
        spans = []
        for side in (height, width):
            length, middle = int(side * fraction), int(rng.integers(side))
            spans.append((max(0, middle - length // 2), min(side, middle + length // 2)))
        (top, bottom), (left, right) = spans
        return top, bottom, left, right


def soft_labels(labels: np.ndarray, num_classes: int, smoothing: float, weight: float) -> np.ndarray:
    """Return mixed, smoothed one-hot labels.

    Args:
        labels: int (B,).
        num_classes: Number of classes K.
        smoothing: Label smoothing, spread evenly over all classes.
        weight: Weight of an image's own label; the rest goes to the label at the mirrored position.

    Returns:
        float32 (B, K); each row sums to 1.
    """
    soft = np.full((len(labels), num_classes), smoothing / num_classes, np.float32)
    soft[np.arange(len(labels)), labels] += np.float32(1 - smoothing)
    return soft * np.float32(weight) + soft[::-1] * np.float32(1 - weight)


def build_mixup(aug: AugConfig) -> Mixup | None:
    """Build the mixing from ``AUG.MIXUP*`` and ``AUG.CUTMIX*``.

    Returns:
        The mixing, or None if both kinds are disabled.

    Raises:
        UserError: ``AUG.MIXUP_MODE`` is not ``batch``.
    """
    cutmix = 1.0 if aug.cutmix_minmax is not None else aug.cutmix  # as timm: bounds replace the alpha
    if aug.mixup == 0 and cutmix == 0:
        return None
    if aug.mixup_mode != "batch":
        raise UserError(f"AUG.MIXUP_MODE={aug.mixup_mode!r}: only 'batch', as in the paper, is supported")
    return Mixup(aug.mixup, cutmix, aug.cutmix_minmax, aug.mixup_prob, aug.mixup_switch_prob)
