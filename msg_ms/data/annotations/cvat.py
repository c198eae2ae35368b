"""CVAT's own XML, "CVAT for images 1.1": boxes, polygons and masks, in pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from ...boxes.rle import encode_rle
from ...errors import UserError
from ..images.class_files import composed
from .image_index import ImageIndex
from .notes import Notes
from .shapes import Box, Labelled, LabelledImage, Polygon, Shape, box_polygon
from .splits import split_name
from .xml_files import BadValue, number_from, parse_xml, text_of

_CORNERS = ("xtl", "ytl", "xbr", "ybr")
_WHOLE = ("left", "top", "width", "height")
_NO_SHAPES = {"attribute", "tag"}


def read_cvat(files: list[Path], index: ImageIndex, notes: Notes) -> Labelled:
    """Read boxes, polygons and masks in CVAT's form.

    Args:
        files: The XML files, such as ``annotations.xml``.
        index: The images.
        notes: Receives images and objects that are skipped or changed.

    Raises:
        UserError: A file is not XML, or holds tracks of a video.
    """
    names: dict[str, None] = {}
    images: list[LabelledImage] = []
    others: Counter[str] = Counter()
    for file in files:
        root = parse_xml(file)
        if root.find("track") is not None:
            raise UserError(f"{file} is in the format CVAT for video; export the task as CVAT for images 1.1")
        names |= {composed(text_of(label, "name")): None for label in root.findall("meta//labels/label")}
        for element in root.findall("image"):
            subset = element.get("subset", "")
            split = split_name(subset)
            if subset and not split:
                others[subset] += 1
            image = _image(element, file, split, index, notes)
            if image is not None:
                image.shapes = list(_shapes(element, image, file, notes))
                images.append(image)
    for subset, count in others.items():
        notes.remark(f"{count} images of the subset {subset!r} have no split")
    index.note_unused()
    return Labelled("CVAT for images", images, [name for name in names if name])


def _image(element: Element, file: Path, split: str, index: ImageIndex, notes: Notes) -> LabelledImage | None:
    name = element.get("name", "")
    place = f"{file}, image {element.get('id', '?')}"
    try:
        height, width = (int(number_from(element.get(key), key)) for key in ("height", "width"))
    except BadValue as problem:
        notes.skip(f"images {problem}", f"{place}: {name}")
        return None
    found = index.find(name, place, [(file.parent / "images" / name).parent, (file.parent / name).parent])
    return None if found is None else index.measure(found, (height, width), split, place)


def _shapes(element: Element, image: LabelledImage, file: Path, notes: Notes) -> Iterator[Shape]:
    for number, shape in enumerate((child for child in element if child.tag not in _NO_SHAPES), 1):
        place = f"{file}, {element.get('name')}, shape {number}"
        label = composed(shape.get("label", "").strip())
        try:
            if not label:
                raise BadValue("without a label")
            if shape.tag == "box":
                yield _box(shape, label, place, notes)
            elif shape.tag == "polygon":
                yield Shape(label, place, polygons=(_points(shape),))
            elif shape.tag == "mask":
                yield Shape(label, place, mask=_mask(shape, image))
            else:
                notes.skip(f"shapes of the kind {shape.tag}, which are neither boxes, polygons nor masks", place)
        except BadValue as problem:
            notes.skip(f"shapes {problem}", place)


def _box(shape: Element, label: str, place: str, notes: Notes) -> Shape:
    x1, y1, x2, y2 = (number_from(shape.get(name), name) for name in _CORNERS)
    box: Box = (x1, y1, x2, y2)
    degrees = number_from(shape.get("rotation", "0"), "rotation")
    if degrees % 360 == 0:
        return Shape(label, place, box)
    notes.change("turned boxes: their corners are the outline, and the box is the one around them", place)
    return Shape(label, place, polygons=(box_polygon(box, degrees),))


def _points(shape: Element) -> Polygon:
    pairs = [pair.split(",") for pair in shape.get("points", "").split(";") if pair]
    if any(len(pair) != 2 for pair in pairs):
        raise BadValue("whose points are not pairs x,y")
    return tuple(number_from(value, "points") for pair in pairs for value in pair)


def _mask(shape: Element, image: LabelledImage) -> dict:
    """Return a mask in COCO's form; CVAT's has the runs of a rectangle row by row, background first."""
    left, top, width, height = (int(number_from(shape.get(name), name)) for name in _WHOLE)
    runs = [int(number_from(run, "rle")) for run in shape.get("rle", "").split(",")]
    if min(left, top) < 0 or min(width, height) < 1 or left + width > image.width or top + height > image.height:
        raise BadValue("whose mask reaches outside its image")
    if min(runs) < 0 or sum(runs) > width * height:
        raise BadValue("whose rle does not add up to width x height")
    flat = np.zeros(width * height, bool)
    flat[: sum(runs)] = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return encode_rle(flat.reshape(height, width), image.height, image.width, top, left)
