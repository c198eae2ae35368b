"""COCO annotation files of other programs: Roboflow's beside its images, CVAT's and Label Studio's."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...errors import UserError, shorten
from ..coco.elements import Malformed, annotation_entries, category_entries, image_entries, shown
from ..coco.json_lists import NOT_ANNOTATIONS, read_lists
from ..coco.segmentations import EMPTY, MISSING, SegmentationBuilder
from ..images.class_files import composed
from .image_index import ImageIndex
from .notes import Notes
from .shapes import Labelled, LabelledImage, Polygon, Shape
from .splits import split_in_path

ROBOFLOW = "_annotations.coco.json"
_KEYS = ("images", "categories", "annotations")


def read_coco_files(source: Path, files: list[Path], index: ImageIndex, notes: Notes) -> Labelled:
    """Read boxes, polygons and run lengths in COCO's form.

    Args:
        source: Folder of the data set.
        files: Its JSON files; their names or folders name the splits.
        index: The images.
        notes: Receives images and annotations that are skipped or changed.

    Raises:
        UserError: A file is not a COCO annotation file, or two files have different categories.
    """
    images: list[LabelledImage] = []
    names: list[str] = []
    for file in files:
        content = _Content(file, notes)
        own = content.names()
        if names and own != names:
            different = shorten(sorted(set(own) ^ set(names))) or "in another order"
            raise UserError(f"{file} has other categories than {files[0]}: {different}")
        names = own
        split = _split(source, file) if len(files) > 1 or file.name != ROBOFLOW else ""
        images += content.images(index, split or _split(source, file))
    index.note_unused()
    program = "Roboflow's COCO" if any(file.name == ROBOFLOW for file in files) else "COCO"
    return Labelled(program, images, names)


def _split(source: Path, file: Path) -> str:
    """Return the split that the folders or the words of the file's name mean."""
    below = file.relative_to(source) if file.is_relative_to(source) else Path(file.name)
    words = re.split(r"[_.\-]", file.name)
    return split_in_path(below.parts[:-1]) or split_in_path(words)


class _Content:
    """The lists of a file."""

    def __init__(self, file: Path, notes: Notes):
        self.file, self.notes = file, notes
        root, part = file.parent.parent, file.stem.removeprefix("instances_")  # annotations/instances_train2017.json
        self.folders = [file.parent, root / part, root / "images" / part]
        self.lists: dict[str, list[Any]] = {key: [] for key in _KEYS}
        receivers: dict[str, Callable[[Any], None]] = {key: self.lists[key].append for key in _KEYS}
        keys = read_lists(file, receivers)
        lacking = [key for key in _KEYS if key not in keys]
        if lacking:
            raise UserError(f"{file}: the key {', '.join(map(repr, lacking))} is missing; {NOT_ANNOTATIONS}")
        self.categories = self._categories()

    def _categories(self) -> dict[int, str]:
        """Return the names by id, without Roboflow's placeholder for the group of all classes."""
        try:
            pairs = [category_entries(category) for category in self.lists["categories"]]
        except Malformed as problem:
            raise UserError(f"{self.file}: categories {problem}") from None
        categories = {number: composed(name) for number, name in pairs}
        if len(categories) < len(pairs):
            raise UserError(f"{self.file}: two categories have the same id; ids must be unique")
        used = {
            annotation.get("category_id") for annotation in self.lists["annotations"] if isinstance(annotation, dict)
        }
        groups = {category.get("supercategory") for category in self.lists["categories"]}
        first: dict[str, Any] = next(iter(self.lists["categories"]), {})
        if first.get("id") == 0 and first.get("supercategory") == "none" and 0 not in used and first["name"] in groups:
            self.notes.remark(f"Roboflow's category 0, {categories.pop(0)!r}, has no objects and is no class")
        return categories

    def names(self) -> list[str]:
        """Return the classes in the order of the file."""
        return list(self.categories.values())

    def images(self, index: ImageIndex, split: str) -> list[LabelledImage]:
        """Return the images with their objects."""
        images: dict[int, LabelledImage] = {}
        unusable: set[int] = set()
        for place, element in enumerate(self.lists["images"], 1):
            try:
                number, height, width, name = image_entries(element)
            except Malformed as problem:
                self.notes.skip(f"images {problem}", f"{self.file}, {shown(element, place)}")
                continue
            where = f"{self.file}, image {number}"
            found = index.find(name, where, [(folder / name).parent for folder in self.folders])
            image = None if found is None else index.measure(found, (height, width), split, where)
            if image is None:
                unusable.add(number)
            else:
                images[number] = image
        for place, element in enumerate(self.lists["annotations"], 1):
            self._add(element, f"{self.file}, annotation {shown(element, place)}", images, unusable)
        return list(images.values())

    def _add(self, element: Any, place: str, images: dict[int, LabelledImage], unusable: set[int]) -> None:
        """Add an annotation to its image, or note why that can't be done."""
        try:
            (_, image_id, category, crowd), (x, y, width, height, _) = annotation_entries(element)
            if image_id in unusable:
                return  # noted with its image
            if image_id not in images:
                raise Malformed("of images that are not in the file")
            if category not in self.categories:
                raise Malformed("of categories that are not in the file")
        except Malformed as problem:
            self.notes.skip(f"annotations {problem}", place)
            return
        image, label = images[image_id], self.categories[category]
        box = (x, y, x + width, y + height)
        segmentation = element.get("segmentation")
        reason = SegmentationBuilder().add(segmentation)
        if not reason and isinstance(segmentation, dict) and segmentation["size"] != [image.height, image.width]:
            reason = "has the size of another image"
        polygons: tuple[Polygon, ...] = ()
        mask = None
        if reason and reason not in (MISSING, EMPTY):
            self.notes.change(f"annotations whose segmentation {reason}; the box is kept", place)
        elif not reason and isinstance(segmentation, dict):
            mask = segmentation
        elif not reason:
            polygons = tuple(tuple(map(float, polygon)) for polygon in segmentation)
        image.shapes.append(Shape(label, place, box, polygons, mask, bool(crowd)))
