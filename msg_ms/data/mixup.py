"""Mixup and CutMix of a whole batch with its mirror image, and the soft labels that follow (timm's batch mode)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..config import AugConfig
from ..errors import UserError

Box = tuple[int, int, int, int]  # top, bottom, left, right


@dataclass(frozen=True)
class Mixup:
    """Draws one mixing per batch, in which picture i is mixed with picture B - 1 - i.

    ``mixup`` and ``cutmix`` are the alphas of the Beta distributions, 0 switches one off; ``minmax`` bounds the sides
    of CutMix's box instead (as parts of the picture's).
    """

    mixup: float
    cutmix: float
    minmax: tuple[float, float] | None
    probability: float
    switch_probability: float

    def draw(self, height: int, width: int, rng: np.random.Generator) -> tuple[float, Box | None]:
        """(weight of the picture itself, CutMix's box or None for Mixup); weight 1 changes nothing."""
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
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            return top, top + h, left, left + w
        part = math.sqrt(1 - weight)
        spans = []
        for side in (height, width):
            length, middle = int(side * part), int(rng.integers(side))
            spans += [max(0, middle - length // 2), min(side, middle + (length + 1) // 2)]
        return tuple(spans)


def soft_labels(labels: np.ndarray, num_classes: int, smoothing: float, weight: float) -> np.ndarray:
    """float32 (B, K): smoothed one-hot labels, ``weight`` of the own one and the rest of the mirror image's."""
    soft = np.full((len(labels), num_classes), smoothing / num_classes, np.float32)
    soft[np.arange(len(labels)), labels] += np.float32(1 - smoothing)
    return soft * np.float32(weight) + soft[::-1] * np.float32(1 - weight)


def build_mixup(aug: AugConfig) -> Mixup | None:
    """The mixing that ``AUG.MIXUP*`` and ``AUG.CUTMIX*`` ask for; None where both are off."""
    cutmix = 1.0 if aug.cutmix_minmax is not None else aug.cutmix  # as timm: bounds replace the alpha
    if aug.mixup == 0 and cutmix == 0:
        return None
    if aug.mixup_mode != "batch":
        raise UserError(f"AUG.MIXUP_MODE={aug.mixup_mode!r}: only 'batch', the paper's, is there")
    return Mixup(aug.mixup, cutmix, aug.cutmix_minmax, aug.mixup_prob, aug.mixup_switch_prob)
