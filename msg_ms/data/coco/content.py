"""The lists of a COCO annotation file, read in one pass and checked."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..images.class_files import composed
from .elements import Malformed, annotation_entries, category_entries, has_no_area, image_entries, shown
from .file_names import match_files
from .findings import Findings
from .ground_truth import GroundTruth
from .segmentations import EMPTY, MISSING, SegmentationBuilder

LARGEST = 2.0**24  # a box's coordinate in training; float32 has all whole numbers up to here
_TOLERANCE = 1.0  # pixels that a box may reach outside its image without a warning
_BOXES_ONLY = (
    "pass --opts MODEL.RCNN.MASKS False to learn boxes alone, or write them as polygons with "
    "tools/import_annotations.py --box-masks"
)


@dataclass
class Content:
    """The lists of an annotation file as columns.

    Attributes:
        masks: Whether annotations must have masks; if not, their segmentations are not looked at.
    """

    masks: bool = True
    images: array = field(default_factory=lambda: array("q"))  # id, height, width
    files: list[str] = field(default_factory=list)
    annotations: array = field(default_factory=lambda: array("q"))  # id, image, category, crowd
    boxes: array = field(default_factory=lambda: array("d"))  # x, y, width, height, area
    category_ids: array = field(default_factory=lambda: array("q"))
    names: list[str] = field(default_factory=list)
    segmentations: SegmentationBuilder = field(default_factory=SegmentationBuilder)
    without_area: list[int] = field(default_factory=list)  # numbers of annotations
    ignored: list[int] = field(default_factory=list)  # numbers of annotations with ``ignore``
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # elements of each list
    malformed: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # by kind
    bad_masks: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))  # annotation ids, by reason

    def receivers(self) -> dict[str, Callable[[Any], None]]:
        """Return the function for the elements of each list."""
        add = {"images": self._add_image, "annotations": self._add_annotation, "categories": self._add_category}
        return {name: partial(self._add, name, function) for name, function in add.items()}

    def _add(self, name: str, add: Callable[[Any], None], element: Any) -> None:
        """Add an element of a list, or note why it can't be used; checks that need other elements come later."""
        self.counts[name] += 1
        try:
            add(element)
        except Malformed as problem:
            self.malformed[f"{name} {problem}"].append(shown(element, self.counts[name]))

    def _add_image(self, image: Any) -> None:
        *row, file = image_entries(image)
        self.images.extend(row)
        self.files.append(file)

    def _add_category(self, category: Any) -> None:
        number, name = category_entries(category)
        self.category_ids.append(number)
        self.names.append(composed(name))

    def _add_annotation(self, annotation: Any) -> None:
        integers, numbers = annotation_entries(annotation)
        if self.masks and (problem := self.segmentations.add(annotation.get("segmentation"))):
            self.bad_masks[problem].append(integers[0])
            return
        row = len(self.annotations) // 4
        if has_no_area(annotation):
            self.without_area.append(row)
        if annotation.get("ignore"):
            self.ignored.append(row)
        self.annotations.extend(integers)
        self.boxes.extend(numbers)

    def check(self, found: Findings) -> None:
        """Note the problems within the file."""
        for kind, cases in self.malformed.items():
            found.error(kind, cases, "correct these")
        for name in ("images", "categories"):
            found.error(f"no {name}", [] if self.counts[name] else [f"{name} is empty"], "list some")
        ids, heights, widths = self.image_columns()
        annotations = self.annotation_columns()
        found.error("image ids that appear twice", twice(ids), "ids must be unique")
        found.error("category ids that appear twice", twice(np.array(self.category_ids)), "ids must be unique")
        found.error("categories that appear twice", twice(np.array(self.names, object)), "names must be unique")
        found.error("annotation ids that appear twice", twice(annotations[:, 0]), "ids must be unique")
        finite = np.isfinite(self.box_columns()).all(1)
        found.error(
            "annotations whose bbox or area is not finite",
            (f"annotation {a}" for a in annotations[~finite, 0].tolist()),
            "correct these",
        )
        self._check_references(found, ids)
        self._check_masks(found, ids, heights, widths)

    def _check_references(self, found: Findings, image_ids: np.ndarray) -> None:
        """Note the annotations whose image or category is not in the file."""
        annotations = self.annotation_columns()
        known = (("image", 1, image_ids), ("category", 2, np.array(self.category_ids, np.int64)))
        for (name, column, ids), plural in zip(known, ("images", "categories"), strict=True):
            if len(ids) < self.counts[plural]:  # some are malformed
                continue
            _, unknown = lookup(annotations[:, column], ids)
            found.error(
                f"annotations of {plural} that are not in the file",
                (f"annotation {a} ({name} {b})" for a, b in annotations[unknown][:, [0, column]].tolist()),
                f"remove them or add the {plural}",
            )

    def _check_masks(self, found: Findings, image_ids: np.ndarray, heights: np.ndarray, widths: np.ndarray) -> None:
        """Note the segmentations that can't be used."""
        annotations, bad = self.annotation_columns(), self.bad_masks
        ids = annotations[:, 0].tolist()
        for row in self.segmentations.wild_annotations():
            bad["has numbers that are not finite or beyond all images"].append(ids[row])
        image, _ = lookup(annotations[:, 1], image_ids)
        for row, size in self.segmentations.sizes.items():
            if image[row] >= 0 and size != (own := (int(heights[image[row]]), int(widths[image[row]]))):
                swapped = "; height comes first" if size == own[::-1] else ""
                bad[f"has size {list(size)}, its image {list(own)}{swapped}"].append(ids[row])
        alone = bad.keys() <= {MISSING, EMPTY} and sum(map(len, bad.values())) == self.counts["annotations"]
        title = "no annotation has a mask, its segmentation" if alone else "annotations whose segmentation"
        for reason, cases in bad.items():
            found.error(
                f"{title} {reason}",
                (f"annotation {a}" for a in cases),
                _BOXES_ONLY if reason in (MISSING, EMPTY) else "correct these or remove the annotations",
            )

    def image_columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return ids, heights and widths of the images, int64 (N,) each."""
        return tuple(np.array(self.images, np.int64).reshape(-1, 3).T)

    def annotation_columns(self) -> np.ndarray:
        """Return id, image, category and crowd of the annotations, int64 (A, 4)."""
        return np.array(self.annotations, np.int64).reshape(-1, 4)

    def box_columns(self) -> np.ndarray:
        """Return x, y, width, height and area of the annotations, float64 (A, 5)."""
        return np.array(self.boxes, np.float64).reshape(-1, 5)

    def match_files(self, folder: Path, found: Findings) -> None:
        """Replace the images' names by the paths of files below the folder; note those that can't be opened."""
        self.files = match_files(self.files, folder, found)

    def usable(self, heights: np.ndarray, widths: np.ndarray, found: Findings, training: bool) -> np.ndarray:
        """Return which annotations mmdetection trains on, bool (A,).

        Args:
            heights: Height of each annotation's image, (A,).
            widths: Width of each annotation's image, (A,).
            found: Receives warnings.
            training: Whether the images are for training; in evaluation all annotations count, as in pycocotools.
        """
        ids = self.annotation_columns()[:, 0]
        x, y, width, height, area = np.clip(self.box_columns(), -LARGEST, LARGEST).T
        right, bottom = x + width, y + height
        inside_x = np.minimum(right, widths) - np.maximum(x, 0)
        inside_y = np.minimum(bottom, heights) - np.maximum(y, 0)
        degenerate = (area <= 0) | (width < 1) | (height < 1)
        outside = ((inside_x <= 0) | (inside_y <= 0)) & ~degenerate
        excess = np.max([-x, -y, right - widths, bottom - heights], 0, initial=0)
        partly = (excess > _TOLERANCE) & ~outside & ~degenerate
        ignored = np.zeros(len(ids), bool)
        ignored[self.ignored] = True
        dropped, clipped = ("are left out of training", "are clipped") if training else ("count in the AP",) * 2
        for kind, chosen in (
            (f"boxes less than a pixel wide or high, or without area, {dropped}", degenerate),
            (f"boxes outside their images {dropped}", outside),
            (f"boxes that reach more than {_TOLERANCE:g} pixel outside their images {clipped}", partly),
            (f"annotations with 'ignore' {dropped}", ignored),
        ):
            found.warn(kind, (f"annotation {a}" for a in ids[chosen].tolist()))
        self._warn_of_other_units(found, degenerate, partly | outside, heights, widths)
        if short := self.segmentations.short_rings:
            found.warn("polygons with fewer than three points are ignored", [f"{short} polygons"])
        return ~(degenerate | outside | ignored)

    def _warn_of_other_units(
        self, found: Findings, tiny: np.ndarray, beyond: np.ndarray, heights: np.ndarray, widths: np.ndarray
    ) -> None:
        """Note boxes that are probably fractions of the image, or two corners."""
        x, y, right, bottom, _ = np.clip(self.box_columns(), -LARGEST, LARGEST).T
        right_form = "COCO's are [x, y, width, height] in pixels"
        fractions = (np.max([x, y, right, bottom], 0, initial=0) <= 1) & (np.min([x, y, right, bottom], 0) >= 0)
        if len(tiny) and tiny.all() and fractions.all():
            found.warn("all boxes are from 0 to 1, as fractions of the image", [right_form])
        corners = (right > x) & (bottom > y) & (right <= widths + 1) & (bottom <= heights + 1)
        if corners.all() and beyond.sum() > len(beyond) / 4:
            found.warn("many boxes reach outside, and all would fit as corners [x1, y1, x2, y2]", [right_form])

    def ground_truth(self, images: np.ndarray, labels: np.ndarray) -> GroundTruth:
        """Return all annotations as pycocotools counts them.

        Args:
            images: Index of each annotation's image, (A,).
            labels: (A,).
        """
        numbers, crowd = self.box_columns(), self.annotation_columns()[:, 3].astype(bool)
        if self.masks:
            numbers[self.without_area, 4] = np.nan
        return GroundTruth(
            images.astype(np.int32), labels.astype(np.int32), crowd, numbers[:, :4].copy(), numbers[:, 4].copy()
        )


def starts(lengths: np.ndarray) -> np.ndarray:
    """Return where parts of these lengths begin, and the end of the last one, int64 (N + 1)."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def twice(values: np.ndarray) -> list[Any]:
    """Return the values that appear more than once."""
    if len(set(values.tolist())) == len(values):
        return []
    unique, counts = np.unique(values, return_counts=True)
    return unique[counts > 1].tolist()


def lookup(values: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the index of each value in ``known``, int64, -1 where there is none; and which have none, bool."""
    if not len(known):
        return np.full(len(values), -1), np.ones(len(values), bool)
    order = np.argsort(known, kind="stable")
    place = order[np.minimum(np.searchsorted(known, values, sorter=order), len(known) - 1)]
    unknown = known[place] != values
    return np.where(unknown, -1, place), unknown
