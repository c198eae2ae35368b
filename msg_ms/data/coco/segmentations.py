"""The masks of many annotations in little memory: polygons and run lengths as arrays."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from ...boxes.rle import run_lengths
from .elements import kind

MISSING, EMPTY = "is missing", "is empty"  # reasons of files with boxes alone
_FLUSH = 2**20  # coordinates that are collected before they are packed
_UNITS = 100  # COCO's coordinates have two decimals
_MIN_COORDINATES = 6  # three points
_LARGEST = 2.0**20  # pixels; pycocotools needs memory in proportion to a polygon's length


@dataclass(frozen=True, eq=False)
class Segmentations:
    """Polygons or run lengths of A annotations.

    Coordinates are whole hundredths of pixels where that is exact, and float64 otherwise.

    Attributes:
        coordinates: x and y of all points.
        units: Number of units per pixel of the coordinates.
        rings: Where each polygon begins in the coordinates, and the end, int64 (R + 1).
        first_ring: The first polygon of each annotation, and the end, int64 (A + 1).
        text: Run lengths of all annotations that have them, in COCO's compressed form, uint8.
        runs: Where each annotation's run lengths begin in the text, and the end, int64 (A + 1).
    """

    coordinates: np.ndarray
    units: int
    rings: np.ndarray
    first_ring: np.ndarray
    text: np.ndarray
    runs: np.ndarray

    def __len__(self) -> int:
        return len(self.runs) - 1

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in (self.coordinates, self.rings, self.first_ring, self.text, self.runs))

    def polygons(self, index: int) -> list[np.ndarray]:
        """Return an annotation's polygons, float64 (x1, y1, x2, y2, ...) in pixels; none if it has run lengths."""
        ends = self.rings[self.first_ring[index] : self.first_ring[index + 1] + 1].tolist()
        return [self.coordinates[a:b] / self.units for a, b in itertools.pairwise(ends)]

    def encoded(self, index: int, height: int, width: int) -> dict[str, Any]:
        """Return an annotation's mask in COCO's compressed form, as pycocotools draws polygons.

        Args:
            index: The annotation.
            height: Height of its image.
            width: Width of its image.
        """
        begin, end = self.runs[index : index + 2].tolist()
        if begin < end:
            return {"size": [height, width], "counts": self.text[begin:end].tobytes()}
        polygons = [polygon.tolist() for polygon in self.polygons(index)]
        return coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))


class SegmentationBuilder:
    """Collects the segmentations of annotations.

    Attributes:
        short_rings: Number of polygons with fewer than three points, which are ignored.
    """

    def __init__(self):
        self.pending, self.packed = array("d"), []
        self.ring_lengths, self.ring_counts = array("q"), array("q")
        self.text, self.run_lengths = bytearray(), array("q")
        self.sizes: dict[int, tuple[int, int]] = {}
        self.short_rings = 0
        self.wild: list[int] = []  # coordinates that are not finite or beyond any image

    def add(self, segmentation: Any) -> str:
        """Add an annotation's segmentation.

        Args:
            segmentation: A value as in COCO's files.

        Returns:
            Why it can't be used, to follow "whose segmentation"; empty if it can. Then nothing has been added.
        """
        if isinstance(segmentation, list):
            problem = self._add_polygons(segmentation)
        elif isinstance(segmentation, dict):
            problem = self._add_runs(segmentation)
        else:
            problem = MISSING if segmentation is None else f"is {kind(segmentation)}, not a list or run lengths"
        if not problem and len(self.pending) >= _FLUSH:
            self._pack()
        return problem

    def _add_polygons(self, polygons: list) -> str:
        pending, lengths = self.pending, self.ring_lengths
        begin, rings, short = len(pending), len(lengths), 0
        problem = "" if polygons else EMPTY
        for polygon in polygons:
            try:
                count = len(polygon)
                if type(polygon) is not list or count % 2:
                    problem = _why_no_polygon(polygon)
                elif count < _MIN_COORDINATES:
                    array("d", polygon)
                    short += 1
                else:
                    pending.extend(polygon)
                    lengths.append(count)
            except (TypeError, OverflowError):
                problem = _why_no_polygon(polygon)
            if problem:
                break
        if not problem and len(lengths) == rings:
            problem = "has no polygon of three points or more"
        if problem:
            del pending[begin:], lengths[rings:]
        else:
            self.short_rings += short
            self.ring_counts.append(len(lengths) - rings)
            self.run_lengths.append(0)
        return problem

    def _add_runs(self, segmentation: dict) -> str:
        size, counts = _whole_numbers(segmentation.get("size")), segmentation.get("counts")
        if size is None or len(size) != 2 or min(size) < 1 or max(size) > _LARGEST:
            return "has run lengths without a size [height, width]"
        wrong = f"has run lengths that do not add up to its size {size[0]} x {size[1]}"
        if isinstance(counts, list):
            if not counts:
                return wrong
            if (runs := _whole_numbers(counts)) is None:
                return f"has run lengths that hold {_first_other(counts, _is_whole)}"
            if min(runs) < 0 or sum(runs) != size[0] * size[1]:
                return wrong
            counts = coco_mask.frPyObjects({"size": size, "counts": runs}, *size)["counts"]
        elif isinstance(counts, str):
            if counts.startswith(("b'", 'b"')):
                return "has run lengths as Python prints bytes, b'...': decode them before they are written"
            counts = counts.encode("utf-8", "replace")
            if not _adds_up(counts, size[0] * size[1]):
                return wrong
        else:
            return "has run lengths without counts"
        self.sizes[len(self.ring_counts)] = (size[0], size[1])
        self.text += counts
        self.ring_counts.append(0)
        self.run_lengths.append(len(counts))
        return ""

    def _pack(self) -> None:
        values = np.array(self.pending, np.float64)
        before = sum(map(len, self.packed))
        self.wild += (np.flatnonzero(~(np.abs(values) <= _LARGEST)) + before).tolist()
        self.packed.append(_hundredths(values))
        self.pending = array("d")

    def wild_annotations(self) -> list[int]:
        """Return the annotations, by their number here, with coordinates that are not finite or beyond any image."""
        self._pack()
        ring = np.searchsorted(_starts(self.ring_lengths), self.wild, side="right") - 1
        return np.unique(np.searchsorted(_starts(self.ring_counts), ring, side="right") - 1).tolist()

    def build(self) -> Segmentations:
        """Return the collected segmentations."""
        self._pack()
        parts, self.packed = self.packed, []
        units = _UNITS
        if any(part.dtype == np.float64 for part in parts):
            parts = [part if part.dtype == np.float64 else part / _UNITS for part in parts]
            units = 1
        return Segmentations(
            np.concatenate(parts),
            units,
            _starts(self.ring_lengths),
            _starts(self.ring_counts),
            np.frombuffer(bytes(self.text), np.uint8),
            _starts(self.run_lengths),
        )


def _why_no_polygon(polygon: Any) -> str:
    """Return why an entry of a list of polygons is none."""
    right = "a polygon is one list [x1, y1, x2, y2, ...]"
    if isinstance(polygon, dict):
        if "counts" in polygon:
            return "is a list of run lengths, not one object with size and counts"
        return f"has points as objects; {right}"
    if isinstance(polygon, bool | int | float):
        return f"is a list of numbers, not of polygons; {right}, in a list of polygons"
    if not isinstance(polygon, list):
        return f"has a polygon that is {kind(polygon)}; {right}"
    if any(isinstance(value, list | dict) for value in polygon):
        return f"has polygons of points as {'lists' if isinstance(polygon[0], list) else 'objects'}; {right}"
    if other := _first_other(polygon, lambda value: isinstance(value, int | float)):
        return f"has a polygon that holds {other}"
    if len(polygon) % 2:
        return f"has a polygon of {len(polygon)} numbers, an odd count"
    return "has a polygon with a number beyond all images"


def _first_other(values: list, is_right: Callable[[Any], bool]) -> str:
    """Return the first value that is not right, in words."""
    other = next((value for value in values if not is_right(value)), None)
    if isinstance(other, float):
        return f"{other:g}, not a whole number"
    if isinstance(other, int):
        return "a number beyond 64 bits"
    return "" if all(map(is_right, values)) else f"{kind(other)}, not numbers"


def _is_whole(value: Any) -> bool:
    return (isinstance(value, int) and abs(value) < 2**63) or (isinstance(value, float) and value.is_integer())


def _whole_numbers(values: Any) -> list[int] | None:
    """Return whole numbers, of which 1.0 is one, as integers; None for anything else."""
    return [int(value) for value in values] if isinstance(values, list) and all(map(_is_whole, values)) else None


def _hundredths(values: np.ndarray) -> np.ndarray:
    """Return coordinates as the smallest type of whole hundredths; unchanged if that is not exact."""
    with np.errstate(over="ignore", invalid="ignore"):
        whole = np.rint(values * _UNITS)
        exact = bool((whole / _UNITS == values).all()) and np.abs(whole).max(initial=0) < 2**31
    if not exact:
        return values
    kind = np.uint16 if whole.min(initial=0) >= 0 and whole.max(initial=0) < 2**16 else np.int32
    return whole.astype(kind)


def _starts(lengths: array) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.array(lengths, np.int64))]).astype(np.int64)


def _adds_up(counts: bytes, pixels: int) -> bool:
    """Return whether compressed run lengths are valid and cover a number of pixels."""
    try:
        values = run_lengths(counts)
    except ValueError:
        return False
    return bool(values.min() >= 0 and values.sum() == pixels)
