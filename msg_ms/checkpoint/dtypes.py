"""Types of weights: float32 as the model has them, or others, and what changing them does to the values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from ..errors import UserError
from .types import BFLOAT16

TYPES = {"float32": np.dtype(np.float32), "float16": np.dtype(np.float16), "bfloat16": BFLOAT16}
KEEP = "keep"


def wide(value: np.ndarray) -> np.ndarray:
    """Exactly the same numbers in a type that NumPy computes with."""
    if value.dtype == BFLOAT16:
        return (np.ascontiguousarray(value).view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return value


def cast(value: np.ndarray, target: np.dtype) -> np.ndarray:
    """The values in another type, rounded to the nearest."""
    with np.errstate(over="ignore"):
        if value.dtype == target:
            return value
        if target != BFLOAT16:
            return wide(value).astype(target)
        # bfloat16 is the upper half of float32: rounded to the nearest, ties to even; NaN keeps its upper half.
        single = np.ascontiguousarray(wide(value).astype(np.float32))
        bits = single.view(np.uint32)
        upper = np.where(np.isnan(single), bits >> 16 | 0x40, (bits + 0x7FFF + (bits >> 16 & 1)) >> 16)
        return upper.astype(np.uint16).view(BFLOAT16)


def finite(value: np.ndarray) -> bool:
    """Whether all values are finite numbers."""
    return bool(np.isfinite(wide(value)).all())


def cast_weights(weights: Mapping[str, np.ndarray], kind: str) -> tuple[dict[str, np.ndarray], str]:
    """The weights as ``kind`` ("float32", "float16", "bfloat16", or "keep"), and words on types and exactness.

    Raises UserError for weights that are no floating-point numbers, or that leave the range of ``kind``.
    """
    wrong = [n for n, value in weights.items() if value.dtype.kind != "f" and value.dtype != BFLOAT16]
    if wrong:
        raise UserError(f"{wrong[0]} holds {weights[wrong[0]].dtype} where weights must be floating-point numbers")
    before = Counter(str(value.dtype) for value in weights.values())
    result, rounded = {}, 0
    for name, value in weights.items():
        target = value.dtype if kind == KEEP else TYPES[kind]
        result[name] = value if value.dtype == target else cast(value, target)
        count = 0 if value.dtype == target else _changed(value, result[name])
        rounded += count
        if count and (np.isinf(wide(result[name])) & np.isfinite(wide(value))).any():
            raise UserError(f"{name} has values beyond the range of {kind}")
    after = Counter(str(value.dtype) for value in result.values())
    if before == after:
        return result, " and ".join(sorted(after))
    exact = f"{rounded:,} values rounded" if rounded else "every value exact"
    return result, f"{' and '.join(sorted(before))} written as {kind}, {exact}"


def same_values(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays of one shape hold the same numbers, whatever their types."""
    return bool((wide(one) == wide(other)).all())


def _changed(before: np.ndarray, after: np.ndarray) -> int:
    before, after = wide(before), wide(after)
    return int(np.count_nonzero((before != after) & ~(np.isnan(before) & np.isnan(after))))
