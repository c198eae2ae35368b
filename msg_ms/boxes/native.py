"""Masks and anchors in C++, for any device: they run outside the interpreter's lock, as ctypes releases it.

Without a compiler every function returns None, and its caller uses NumPy, with the same values.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from ctypes import c_char_p, c_double, c_int, c_int64, c_void_p
from pathlib import Path

import numpy as np

from ..native.build import optional_library

SOURCES = Path(__file__).parent / "csrc"
# Bits as in NumPy, without fused multiplications and additions.
FLAGS = ("-ffp-contract=off",)
_ARGUMENTS = {
    "crop_masks": (c_char_p, c_void_p, c_int, c_int, *(c_void_p, c_int) * 2, c_void_p, c_int, c_void_p, c_void_p),
    "paste_masks": (c_void_p, c_int, c_int, c_int, c_void_p, c_int, c_int, c_double, c_void_p),
    "free_text": (c_void_p,),
    "assign_anchors": (c_void_p, c_int64, c_void_p, c_int, c_void_p, c_int, *(c_double,) * 5, c_void_p),
}


def crop_masks(
    counts: Sequence[bytes],
    height: int,
    rows: np.ndarray,
    columns: np.ndarray,
    boxes: np.ndarray,
    crops: np.ndarray,
    frames: np.ndarray,
) -> bool:
    """Do the work of ``masks.crop_encoded_masks``, with contiguous outputs; return whether there is a compiler."""
    library = _library()
    if library is None:
        return False
    text, starts = b"".join(counts), np.cumsum([0, *map(len, counts)], dtype=np.int64)
    rows, columns = (np.ascontiguousarray(axis, np.int64) for axis in (rows, columns))
    boxes = np.ascontiguousarray(boxes, np.float64)
    axes = (rows.ctypes.data, len(rows), columns.ctypes.data, len(columns))
    outputs = (crops.shape[-1], crops.ctypes.data, frames.ctypes.data)
    if library.crop_masks(text, starts.ctypes.data, len(counts), height, *axes, boxes.ctypes.data, *outputs):
        raise MemoryError(f"no memory for masks of {height} x {len(columns)} pixels")
    return True


def paste_masks(
    probabilities: np.ndarray, boxes: np.ndarray, height: int, width: int, threshold: float
) -> list[str] | None:
    """Return the compressed run lengths of ``masks.paste_masks``; None without a compiler."""
    library = _library()
    if library is None:
        return None
    count, *cells = probabilities.shape
    probabilities = np.ascontiguousarray(probabilities, np.float32)
    boxes, starts = np.ascontiguousarray(boxes, np.float64), np.zeros(count + 1, np.int64)
    text = library.paste_masks(
        probabilities.ctypes.data, count, *cells, boxes.ctypes.data, height, width, threshold, starts.ctypes.data
    )
    if not text:
        raise MemoryError(f"no memory for {count} masks of {height} x {width} pixels")
    try:
        runs = ctypes.string_at(text, starts[-1]).decode("ascii")
    finally:
        library.free_text(text)
    return [runs[begin:end] for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)]


def assign_anchors(
    anchors: np.ndarray,
    table: np.ndarray,
    gt: np.ndarray,
    img_shape: Sequence[int],
    positive: float,
    negative: float,
    least: float,
) -> np.ndarray | None:
    """Return the result of ``AnchorGrid.assign``; None without a compiler.

    Args:
        anchors: float32 (A, 4), contiguous.
        table: For each grid of anchors its first anchor, rows, columns, ratio and number of ratios, int64 (N, 5).
        gt: Ground-truth boxes, float32 (G, 4), contiguous.
        img_shape: Height and width of the image.
        positive: As in ``AssignRule``.
        negative: As in ``AssignRule``.
        least: ``min_positive`` of ``AssignRule``.
    """
    library = _library()
    if library is None:
        return None
    assigned = np.empty(len(anchors), np.int32)
    grids, boxes = (table.ctypes.data, len(table)), (gt.ctypes.data, len(gt))
    rule, output = (*map(float, img_shape), positive, negative, least), assigned.ctypes.data
    if library.assign_anchors(anchors.ctypes.data, len(anchors), *grids, *boxes, *rule, output):
        raise MemoryError(f"no memory to assign {len(anchors)} anchors")
    return assigned


@functools.cache
def _library() -> ctypes.CDLL | None:
    """Build and load the library once."""
    library = optional_library(
        "boxes", SOURCES, FLAGS, _ARGUMENTS, "masks and anchors are computed with NumPy, slower than native code"
    )
    if library is not None:
        library.paste_masks.restype = c_void_p
    return library
