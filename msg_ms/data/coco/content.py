"""The lists of a COCO annotation file, read in one pass and checked."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UserError, printable, shorten
from ..images.folder import IMAGE_SUFFIXES
from .segmentations import SegmentationBuilder

_MAX_SIDE = 2**20
_TOLERANCE = 1.0  # pixels that a box may reach outside its image without a warning


@dataclass
class Findings:
    """Problems of an annotation file by kind: errors and warnings."""

    file: Path
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def error(self, kind: str, cases: Iterable[Any], remedy: str) -> None:
        """Note an error if there are cases of it."""
        if shown := _shown(cases):
            self.errors.append(f"{kind}: {shown}; {remedy}")

    def warn(self, kind: str, cases: Iterable[Any]) -> None:
        """Note a warning if there are cases of it."""
        if shown := _shown(cases):
            self.warnings.append(f"{self.file}: {kind}: {shown}")

    def raise_errors(self) -> None:
        """Raise UserError with all errors, if there are any."""
        if self.errors:
            raise UserError(f"{self.file}: {'; '.join(self.errors)}")


def _shown(cases: Iterable[Any]) -> str:
    cases = list(cases)
    return shorten([printable(str(case), 120) for case in cases])


@dataclass
class Content:
    """The lists of an annotation file as columns."""

    images: array = field(default_factory=lambda: array("q"))  # id, height, width
    files: list[str] = field(default_factory=list)
    annotations: array = field(default_factory=lambda: array("q"))  # id, image, category, crowd
    boxes: array = field(default_factory=lambda: array("d"))  # x, y, width, height, area
    category_ids: array = field(default_factory=lambda: array("q"))
    names: list[str] = field(default_factory=list)
    segmentations: SegmentationBuilder = field(default_factory=SegmentationBuilder)
    bad_images: list[str] = field(default_factory=list)
    bad_categories: list[str] = field(default_factory=list)
    bad_annotations: list[str] = field(default_factory=list)
    bad_boxes: list[str] = field(default_factory=list)
    bad_masks: list[str] = field(default_factory=list)

    def receivers(self) -> dict[str, Any]:
        """Return the function for the elements of each list."""
        return {"images": self.add_image, "annotations": self.add_annotation, "categories": self.add_category}

    def add_image(self, image: Any) -> None:
        """Add an element of ``images``."""
        number = len(self.files) + len(self.bad_images)
        try:
            row, file = (image["id"], image["height"], image["width"]), image["file_name"]
            array("q", row)
            if not (isinstance(file, str) and file and 0 < row[1] < _MAX_SIDE and 0 < row[2] < _MAX_SIDE):
                raise ValueError
        except (KeyError, TypeError, ValueError, OverflowError):
            self.bad_images.append(f"number {number + 1}{_id_of(image)}")
            return
        self.images.extend(row)
        self.files.append(file)

    def add_category(self, category: Any) -> None:
        """Add an element of ``categories``."""
        try:
            number, name = category["id"], category["name"]
            array("q", [number])
            if not (isinstance(name, str) and name):
                raise ValueError
        except (KeyError, TypeError, ValueError, OverflowError):
            self.bad_categories.append(f"number {len(self.names) + len(self.bad_categories) + 1}{_id_of(category)}")
            return
        self.category_ids.append(number)
        self.names.append(name)

    def add_annotation(self, annotation: Any) -> None:
        """Add an element of ``annotations``; the checks that need other elements come later."""
        try:
            crowd = annotation.get("iscrowd", 0)
            row = (annotation["id"], annotation["image_id"], annotation["category_id"], crowd)
            integers = array("q", row)
            if annotation.get("ignore", 0):
                return
            if crowd not in (0, 1):
                raise ValueError
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
            number = len(self.annotations) // 4 + len(self.bad_annotations) + len(self.bad_boxes) + len(self.bad_masks)
            self.bad_annotations.append(f"number {number + 1}{_id_of(annotation)}")
            return
        try:
            x, y, width, height = annotation["bbox"]
            numbers = array("d", (x, y, width, height, annotation.get("area", 1.0)))
        except (KeyError, TypeError, ValueError, OverflowError):
            self.bad_boxes.append(f"annotation {row[0]}")
            return
        if crowd:
            self.segmentations.add_none()
        elif problem := self.segmentations.add(annotation.get("segmentation")):
            self.bad_masks.append(f"that of annotation {row[0]} {problem}")
            return
        self.annotations.extend(integers)
        self.boxes.extend(numbers)

    def check(self, found: Findings) -> None:
        """Note the problems within the file."""
        found.error(
            "images that lack an id, a file_name, or a width and height above 0", self.bad_images, "correct these"
        )
        found.error("categories that lack an id or a name", self.bad_categories, "correct these")
        found.error(
            "annotations without whole numbers as id, image_id and category_id, or iscrowd other than 0 and 1",
            self.bad_annotations,
            "correct these",
        )
        ids, heights, widths = self.image_columns()
        annotations = self.annotation_columns()
        found.error("image ids that appear twice", twice(ids), "ids must be unique")
        found.error("file names that appear twice", twice(np.array(self.files, object)), "list each image once")
        found.error("category ids that appear twice", twice(np.array(self.category_ids)), "ids must be unique")
        found.error("categories that appear twice", twice(np.array(self.names, object)), "names must be unique")
        found.error("annotation ids that appear twice", twice(annotations[:, 0]), "ids must be unique")
        outside = [f for f in self.files if f.startswith("/") or ".." in f.split("/") or "\0" in f]
        found.error("file names that are not below the folder of the images", outside, "correct them")
        found.error("no images", [] if self.files or self.bad_images else ["images is empty"], "list some")
        found.error("no categories", [] if self.names or self.bad_categories else ["categories is empty"], "list some")
        if not self.bad_images:
            image, unknown = lookup(annotations[:, 1], ids)
            found.error(
                "annotations of images that are not in the file",
                (f"annotation {a} (image {b})" for a, b in annotations[unknown][:, :2].tolist()),
                "remove them or add the images",
            )
            self._check_masks(found, image, heights, widths)
        if not self.bad_categories:
            _, unknown = lookup(annotations[:, 2], np.array(self.category_ids, np.int64))
            found.error(
                "annotations of categories that are not in the file",
                (f"annotation {a} (category {c})" for a, _, c in annotations[unknown][:, :3].tolist()),
                "remove them or add the categories",
            )
        numbers = self.box_columns()
        not_finite = annotations[~np.isfinite(numbers).all(1), 0].tolist()
        found.error(
            "a bbox must be four finite numbers [x, y, width, height], and area a number",
            [*self.bad_boxes, *(f"annotation {a}" for a in not_finite)],
            "correct these",
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

    def _check_masks(self, found: Findings, image: np.ndarray, heights: np.ndarray, widths: np.ndarray) -> None:
        ids = self.annotation_columns()[:, 0].tolist()
        bad = list(self.bad_masks)
        bad += [f"that of annotation {ids[row]} has unusable numbers" for row in self.segmentations.wild_annotations()]
        for row, size in self.segmentations.sizes.items():
            if image[row] >= 0 and size != (own := (int(heights[image[row]]), int(widths[image[row]]))):
                bad.append(f"that of annotation {ids[row]} has size {list(size)}, its image {list(own)}")
        found.error("a segmentation is missing or malformed", bad, "correct these or remove the annotations")

    def check_files(self, folder: Path, found: Findings) -> None:
        """Compare the images with the files of the folder."""
        present = list_images(folder)
        inner = [file for file in self.files if "/" in file]
        present.update(file for file in inner if (folder / file).is_file())
        missing = [file for file in self.files if file not in present]
        found.error(
            f"{len(missing)} images are not in {folder}", missing, "copy them there or remove them from the file"
        )
        extra = sorted(present.difference(self.files))
        found.warn(f"{len(extra)} files of {folder} are not in the file and are ignored", extra)

    def usable(self, heights: np.ndarray, widths: np.ndarray, found: Findings) -> tuple[np.ndarray, np.ndarray]:
        """Return which annotations mmdetection keeps, bool (A,), and all boxes, float32 (A, 4).

        Args:
            heights: Height of each annotation's image, (A,).
            widths: Width of each annotation's image, (A,).
            found: Receives warnings.
        """
        ids = self.annotation_columns()[:, 0]
        x, y, width, height, area = self.box_columns().T
        right, bottom = x + width, y + height
        inside_x = np.minimum(right, widths) - np.maximum(x, 0)
        inside_y = np.minimum(bottom, heights) - np.maximum(y, 0)
        degenerate = (area <= 0) | (width < 1) | (height < 1)
        outside = ((inside_x <= 0) | (inside_y <= 0)) & ~degenerate
        excess = np.max([-x, -y, right - widths, bottom - heights], 0, initial=0)
        partly = (excess > _TOLERANCE) & ~outside & ~degenerate
        for kind, chosen in (
            ("boxes less than a pixel wide or high, or without area, are ignored", degenerate),
            ("boxes outside their images are ignored", outside),
            (f"boxes that reach more than {_TOLERANCE:g} pixel outside their images are clipped", partly),
        ):
            found.warn(kind, (f"annotation {a}" for a in ids[chosen].tolist()))
        if short := self.segmentations.short_rings:
            found.warn("polygons with fewer than three points are ignored", [f"{short} polygons"])
        return ~(degenerate | outside), np.stack([x, y, right, bottom], 1).astype(np.float32)


def _id_of(element: Any) -> str:
    number = element.get("id") if isinstance(element, dict) else None
    return "" if number is None else f" (id {printable(str(number), 40)})"


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


def list_images(folder: Path) -> set[str]:
    """Return the names of the image files directly in a folder.

    Raises:
        UserError: The folder can't be read.
    """
    try:
        with os.scandir(folder) as entries:
            return {e.name for e in entries if e.name.lower().endswith(IMAGE_SUFFIXES) and e.name[0] != "."}
    except OSError as error:
        raise UserError(f"can't read the folder {folder}: {error.strerror}") from None
