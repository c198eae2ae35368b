"""Element types of weights: convert between them and report rounding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from ..errors import UserError
from .types import BFLOAT16, Arrays

DTYPES: dict[str, np.dtype] = {"float32": np.dtype(np.float32), "float16": np.dtype(np.float16), "bfloat16": BFLOAT16}
KEEP = "keep"


def upcast_bfloat16(value: np.ndarray) -> np.ndarray:
    """Return bfloat16 values as float32, which is exact; return other arrays unchanged.

    NumPy does not compute with bfloat16.
    """
    if value.dtype == BFLOAT16:
        return (np.ascontiguousarray(value).view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return value


def cast(value: np.ndarray, target: np.dtype) -> np.ndarray:
    """Return the values in another type, rounded to the nearest."""
    with np.errstate(over="ignore"):
        if value.dtype == target:
            return value
        if target != BFLOAT16:
            return upcast_bfloat16(value).astype(target)
        # bfloat16 is the upper half of float32: round to the nearest, ties to even. NaN keeps its upper half.
        single = np.ascontiguousarray(upcast_bfloat16(value).astype(np.float32))
        bits = single.view(np.uint32)
        upper = np.where(np.isnan(single), bits >> 16 | 0x40, (bits + 0x7FFF + (bits >> 16 & 1)) >> 16)
        return upper.astype(np.uint16).view(BFLOAT16)


def is_finite(value: np.ndarray) -> bool:
    """Return whether no value is infinite or NaN."""
    return bool(np.isfinite(upcast_bfloat16(value)).all())


def cast_weights(weights: Mapping[str, np.ndarray], dtype: str) -> tuple[Arrays, str]:
    """Cast all weights to one type.

    Args:
        weights: Floating-point arrays by name.
        dtype: ``"float32"``, ``"float16"``, ``"bfloat16"``, or ``"keep"`` to leave the types unchanged.

    Returns:
        The weights by name, and a short text on the types and on the number of rounded values.

    Raises:
        UserError: If a weight is not a floating-point array, or has values outside the range of ``dtype``.
    """
    for name, value in weights.items():
        if value.dtype.kind != "f" and value.dtype != BFLOAT16:
            raise UserError(f"{name} has type {value.dtype}; weights must be floating-point numbers")
    before = Counter(str(value.dtype) for value in weights.values())
    result, rounded = {}, 0
    for name, value in weights.items():
        target = value.dtype if dtype == KEEP else DTYPES[dtype]
        result[name] = value if value.dtype == target else cast(value, target)
        changed = 0 if value.dtype == target else _count_changed(value, result[name])
        rounded += changed
        if changed and (np.isinf(upcast_bfloat16(result[name])) & np.isfinite(upcast_bfloat16(value))).any():
            raise UserError(f"{name} has values outside the range of {dtype}")
    after = Counter(str(value.dtype) for value in result.values())
    if before == after:
        return result, " and ".join(sorted(after))
    exact = f"{rounded:,} values rounded" if rounded else "every value exact"
    return result, f"{' and '.join(sorted(before))} written as {dtype}, {exact}"


def same_values(one: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two arrays of the same shape hold equal numbers; their types may differ."""
    return bool((upcast_bfloat16(one) == upcast_bfloat16(other)).all())


def _count_changed(before: np.ndarray, after: np.ndarray) -> int:
    before, after = upcast_bfloat16(before), upcast_bfloat16(after)
    return int(np.count_nonzero((before != after) & ~(np.isnan(before) & np.isnan(after))))
