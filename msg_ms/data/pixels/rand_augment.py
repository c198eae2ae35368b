"""RandAugment as in timm: operations, magnitudes, probabilities and configuration strings.

Images are uint8 RGB (H, W, 3). Operations on values equal Pillow's bit for bit; most of them are look-up tables.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from ...errors import UserError, nearest
from .warp import rotate, shear_x, shear_y, translate_x, translate_y

FULL_LEVEL = 10.0  # level of the strongest effect
TRANSLATE_FRACTION = 0.45  # of the side, at full level
# Pillow's weights from RGB to luminance, times 65536.
LUMA = np.array([19595, 38470, 7471], np.float32)
_VALUES = np.arange(256)


def _rounded(table: np.ndarray) -> np.ndarray:
    """Return a table of integers with its entries limited to 0..255, uint8."""
    return np.minimum(np.maximum(table, 0), 255).astype(np.uint8)


def _apply(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Replace each value by its entry in ``table``, uint8 (256,) for all channels or (256, 3)."""
    return cv2.LUT(image, table.reshape(256, 1, -1) if table.ndim == 2 else table)


def _histograms(image: np.ndarray) -> np.ndarray:
    """Return the histogram of each channel, int64 (3, 256)."""
    counts = [cv2.calcHist([image], [c], None, [256], [0, 256]) for c in range(3)]
    return np.array(counts, np.int64).reshape(3, 256)


def luminance(image: np.ndarray) -> np.ndarray:
    """Convert to luminance like Pillow's mode "L"; returns uint8 (H, W)."""
    # Each sum is below 2**24, so float32 is exact.
    weighted = cv2.transform(image.astype(np.float32), LUMA[None])
    np.add(weighted, 32768, out=weighted)
    np.multiply(weighted, 1 / 65536, out=weighted)
    return weighted.astype(np.uint8)


def blend(degenerate: np.ndarray, image: np.ndarray, factor: float) -> np.ndarray:
    """Return degenerate + factor * (image - degenerate) in float32, truncated like Pillow's Image.blend."""
    low, mixed = degenerate.astype(np.float32), image.astype(np.float32)
    mixed -= low
    mixed *= np.float32(factor)
    mixed += low
    return np.clip(mixed, 0, 255, out=mixed).astype(np.uint8)


def auto_contrast(image: np.ndarray) -> np.ndarray:
    """Stretch each channel's values to 0..255."""
    table = np.empty((256, 3), np.int64)
    for c, histogram in enumerate(_histograms(image)):
        filled = np.flatnonzero(histogram)
        low, high = filled[0], filled[-1]
        if high <= low:
            table[:, c] = _VALUES
        else:
            scale = 255.0 / (high - low)
            table[:, c] = (_VALUES * scale - low * scale).astype(np.int64)
    return _apply(image, _rounded(table))


def equalize(image: np.ndarray) -> np.ndarray:
    """Flatten each channel's histogram."""
    table = np.empty((256, 3), np.int64)
    for c, histogram in enumerate(_histograms(image)):
        filled = histogram[histogram > 0]
        step = (filled.sum() - filled[-1]) // 255 if len(filled) > 1 else 0
        if step:
            before = np.concatenate(([0], np.cumsum(histogram)[:-1]))
            table[:, c] = (step // 2 + before) // step
        else:
            table[:, c] = _VALUES
    return _apply(image, _rounded(table))


def invert(image: np.ndarray) -> np.ndarray:
    """Replace each value v by 255 - v."""
    return cv2.bitwise_not(image)


def posterize(image: np.ndarray, bits: int) -> np.ndarray:
    """Keep the ``bits`` highest bits of each value."""
    return image if bits >= 8 else _apply(image, _posterize_table(bits))


@functools.cache  # at most 9 tables
def _posterize_table(bits: int) -> np.ndarray:
    return _rounded(_VALUES & (256 - 2 ** (8 - bits)))


def solarize(image: np.ndarray, threshold: int) -> np.ndarray:
    """Invert the values that are at least ``threshold``."""
    return _apply(image, _solarize_table(threshold))


@functools.cache  # at most 257 tables
def _solarize_table(threshold: int) -> np.ndarray:
    return _rounded(np.where(threshold > _VALUES, _VALUES, 255 - _VALUES))


def solarize_add(image: np.ndarray, amount: int) -> np.ndarray:
    """Add ``amount`` to the values below 128."""
    return _apply(image, _solarize_add_table(amount))


@functools.cache  # at most 129 tables
def _solarize_add_table(amount: int) -> np.ndarray:
    return _rounded(np.where(_VALUES < 128, _VALUES + amount, _VALUES))


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend with black; factor 1 returns the image."""
    return _apply(image, blend(np.zeros(256), _VALUES, factor))


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend with the mean luminance; factor 1 returns the image."""
    mean = int(luminance(image).mean(dtype=np.float64) + 0.5)
    return _apply(image, blend(np.full(256, mean), _VALUES, factor))


def color(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend with the image's luminance; factor 1 returns the image."""
    return blend(cv2.cvtColor(luminance(image), cv2.COLOR_GRAY2RGB), image, factor)


def sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend with the image smoothed by a 3x3 kernel (5 in the centre, else 1, divided by 13), except at the border."""
    total = cv2.boxFilter(image, cv2.CV_16U, (3, 3), normalize=False) + 4 * image.astype(np.uint16)
    smooth = image.copy()
    smooth[1:-1, 1:-1] = ((2 * total + 13) // 26)[1:-1, 1:-1]
    return blend(smooth, image, factor)


Generator = np.random.Generator
Operation = Callable[[np.ndarray, float, Generator], np.ndarray]


def _sign(rng: Generator) -> int:
    return -1 if rng.random() > 0.5 else 1


def _enhance(operation: Callable[[np.ndarray, float], np.ndarray], increasing: bool) -> Operation:
    def apply(image: np.ndarray, level: float, rng: Generator) -> np.ndarray:
        if increasing:
            return operation(image, max(0.1, 1.0 + _sign(rng) * level / FULL_LEVEL * 0.9))
        return operation(image, level / FULL_LEVEL * 1.8 + 0.1)

    return apply


def _geometric(operation: Callable[..., np.ndarray], strongest: float) -> Operation:
    def apply(image: np.ndarray, level: float, rng: Generator) -> np.ndarray:
        return operation(image, _sign(rng) * level / FULL_LEVEL * strongest)

    return apply


def _posterize_bits(level: float, increasing: bool) -> int:
    removed = int(level / FULL_LEVEL * 4)
    return 4 - removed if increasing else removed


def _solarize_threshold(level: float, increasing: bool) -> int:
    threshold = min(256, int(level / FULL_LEVEL * 256))
    return 256 - threshold if increasing else threshold


def operations(increasing: bool) -> dict[str, Operation]:
    """Return timm's operations by name, in timm's order.

    Args:
        increasing: Whether each operation is stronger at a higher level, as with timm's ``inc1``.

    Returns:
        Functions of (image, level from 0 to 10, rng).
    """
    suffix = "Increasing" if increasing else ""
    return {
        "AutoContrast": lambda image, level, rng: auto_contrast(image),
        "Equalize": lambda image, level, rng: equalize(image),
        "Invert": lambda image, level, rng: invert(image),
        "Rotate": _geometric(rotate, 30.0),
        f"Posterize{suffix}": lambda image, level, rng: posterize(image, _posterize_bits(level, increasing)),
        f"Solarize{suffix}": lambda image, level, rng: solarize(image, _solarize_threshold(level, increasing)),
        "SolarizeAdd": lambda image, level, rng: solarize_add(image, min(128, int(level / FULL_LEVEL * 110))),
        f"Color{suffix}": _enhance(color, increasing),
        f"Contrast{suffix}": _enhance(contrast, increasing),
        f"Brightness{suffix}": _enhance(brightness, increasing),
        f"Sharpness{suffix}": _enhance(sharpness, increasing),
        "ShearX": _geometric(shear_x, 0.3),
        "ShearY": _geometric(shear_y, 0.3),
        "TranslateXRel": _geometric(translate_x, TRANSLATE_FRACTION),
        "TranslateYRel": _geometric(translate_y, TRANSLATE_FRACTION),
    }


@dataclass(frozen=True)
class RandAugment:
    """Random operations on an image, drawn uniformly with replacement.

    Attributes:
        magnitude: Mean level of an operation, from 0 to 10.
        layers: Number of operations.
        probability: Probability that a drawn operation is applied.
        deviation: Standard deviation of the level. Infinity draws the level uniformly below ``magnitude``.
        largest: Upper bound of the level.
        increasing: See ``operations``.
    """

    magnitude: float = FULL_LEVEL
    layers: int = 2
    probability: float = 0.5
    deviation: float = 0.0
    largest: float = FULL_LEVEL
    increasing: bool = False
    operations: tuple[tuple[str, Operation], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        object.__setattr__(self, "operations", tuple(operations(self.increasing).items()))

    def draw(self, rng: Generator) -> list[tuple[str, Operation, float]]:
        """Draw the operations of one image as (name, operation, level)."""
        chosen = []
        # Single draws have the values of one draw of several, at half the time under the interpreter's lock.
        for index in [rng.integers(len(self.operations)) for _ in range(self.layers)]:
            if rng.random() < self.probability:
                chosen.append((*self.operations[index], self._level(rng)))
        return chosen

    def _level(self, rng: Generator) -> float:
        level = self.magnitude
        if math.isinf(self.deviation):
            level = rng.uniform(0, level)
        elif self.deviation > 0:
            level = rng.normal(level, self.deviation)
        return max(0.0, min(level, self.largest))

    def __call__(self, image: np.ndarray, rng: Generator) -> np.ndarray:
        """Apply random operations to an image, uint8 RGB (H, W, 3)."""
        for _, operation, level in self.draw(rng):
            image = operation(image, level, rng)
        return image


_SECTIONS = {
    "m": ("magnitude", float),
    "n": ("layers", int),
    "p": ("probability", float),
    "mstd": ("deviation", float),
    "mmax": ("largest", float),
    "inc": ("increasing", bool),
}


def parse_rand_augment(text: str) -> RandAugment | None:
    """Parse timm's configuration string.

    Args:
        text: For example ``rand-m9-mstd0.5-inc1``, or ``none``.

    Returns:
        The augmentation, or None for ``none``.

    Raises:
        UserError: A section of the string is unknown or has an invalid number.
    """
    if text in ("none", ""):
        return None
    head, *sections = text.split("-")
    if head != "rand":
        raise UserError(f"AUG.AUTO_AUGMENT={text!r}: must be 'none' or start with 'rand', as in 'rand-m9-mstd0.5-inc1'")
    values: dict[str, Any] = {}
    for section in sections:
        match = re.fullmatch(r"([a-z]+)(\d+(?:\.\d+)?)", section)
        name = match[1] if match else section
        if name not in _SECTIONS or match is None:
            raise UserError(
                f"AUG.AUTO_AUGMENT={text!r}: unknown section {section!r}{nearest(name, _SECTIONS)}; "
                f"known sections, each followed by a number: {', '.join(_SECTIONS)}"
            )
        key, kind = _SECTIONS[name]
        number = float(match[2])
        if kind is int and (number != int(number) or number < 1):
            raise UserError(f"AUG.AUTO_AUGMENT={text!r}: {section!r} needs an integer of at least 1")
        values[key] = kind(number)
    if values.get("deviation", 0) > 100:  # timm's notation for a uniform magnitude
        values["deviation"] = math.inf
    if not 0 <= values.get("probability", 0) <= 1:
        raise UserError(f"AUG.AUTO_AUGMENT={text!r}: p must be between 0 and 1")
    return RandAugment(**values)
