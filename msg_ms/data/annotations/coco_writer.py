"""A COCO data set from the images and objects of other programs; the images stay where they are."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from ...errors import UserError
from ...files import new_folder
from .image_index import plain_path
from .notes import Notes
from .shapes import Box, LabelledImage, Polygon, Shape, box_polygon, extent
from .splits import SPLITS

_DIGITS = 2  # COCO's coordinates are hundredths of pixels
_MIN_COORDINATES = 6  # three points
_YEAR = "2017"  # of the names of COCO's folders and files


def write_data_set(
    folder: Path, images: Sequence[LabelledImage], names: Sequence[str], notes: Notes, box_masks: bool = False
) -> list[str]:
    """Write ``annotations/instances_<split>2017.json``, and a folder of links to the images of each split.

    Equal images and objects make equal files.

    Args:
        folder: Folder to create; it must not exist, or be empty.
        images: All images with their splits, in the order that the files have.
        names: The classes in the order that the files have.
        notes: Receives objects that are skipped or changed.
        box_masks: Write boxes as polygons where objects have neither polygons nor masks.

    Returns:
        A line on each split.

    Raises:
        UserError: The folder can't be written, or there are no objects.
    """
    contents: dict[str, dict[str, Any]] = {}
    links: dict[str, dict[str, Path]] = {}
    for split in SPLITS:
        part = [image for image in images if image.split == split]
        if part:
            links[split] = _link_names(part)
            contents[split] = _content(part, list(links[split]), names, notes, box_masks)
    if not any(content["annotations"] for content in contents.values()):
        reasons = notes.reasons()
        raise UserError(f"no image has an object{f'; {reasons}' if reasons else ''}")
    with new_folder(folder) as filling:
        (filling / "annotations").mkdir()
        for split, content in contents.items():
            text = json.dumps(content, separators=(",", ":"))
            (filling / "annotations" / f"instances_{split}{_YEAR}.json").write_text(text, encoding="utf-8")
            _link(filling, folder, f"{split}{_YEAR}", links[split])
    return [_summary(split, content) for split, content in contents.items()]


def _link_names(images: Sequence[LabelledImage]) -> dict[str, Path]:
    """Return the images by their paths below the folder that all of them share."""
    files = [plain_path(image.file) for image in images]
    shared = Path(os.path.commonpath([file.parent for file in files]))
    return {file.relative_to(shared).as_posix(): file for file in files}


def _link(filling: Path, folder: Path, name: str, files: dict[str, Path]) -> None:
    """Fill a folder with links, relative, so that the data set can be moved together with its images."""
    final = folder.parent.resolve() / folder.name / name
    for below, file in files.items():
        link = filling / name / below
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(file.resolve(), (final / below).parent))


def _content(
    images: Sequence[LabelledImage], files: Sequence[str], names: Sequence[str], notes: Notes, box_masks: bool
) -> dict[str, Any]:
    """Return the content of an annotation file."""
    category = {name: number for number, name in enumerate(names, 1)}
    rows: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (image, file) in enumerate(zip(images, files, strict=True), 1):
        rows.append({"id": number, "file_name": file, "height": image.height, "width": image.width})
        seen: set[str] = set()
        for shape in image.shapes:
            if shape.label not in category:
                notes.skip(f"objects of the class {shape.label}, which --classes does not list", shape.place)
                continue
            own = _annotation(shape, image, notes, box_masks)
            if own is None:
                continue
            key = json.dumps([shape.label, own])
            if key in seen:
                notes.skip("objects that an image has twice", shape.place)
                continue
            seen.add(key)
            ids = {"id": len(annotations) + 1, "image_id": number, "category_id": category[shape.label]}
            annotations.append(ids | own)
    categories = [{"id": number, "name": name, "supercategory": ""} for name, number in category.items()]
    return {"info": {}, "images": rows, "annotations": annotations, "categories": categories}


def _annotation(shape: Shape, image: LabelledImage, notes: Notes, box_masks: bool) -> dict[str, Any] | None:
    """Return the annotation of an object without ids; note why there is none."""
    height, width = image.height, image.width
    shape = replace(shape, polygons=_rounded_polygons(shape, notes))
    if shape.box is None and not shape.polygons and shape.mask is None:
        return None
    encoded = shape.mask
    if shape.polygons:
        parts = coco_mask.frPyObjects([list(polygon) for polygon in shape.polygons], height, width)
        encoded = coco_mask.merge(parts)
    elif encoded is not None and isinstance(encoded["counts"], list):
        encoded = coco_mask.frPyObjects(encoded, height, width)
    box = shape.box or (extent(shape.polygons) if shape.polygons else _box_of_mask(encoded))
    if not shape.box and shape.polygons and _excess(box, height, width) > 0:
        box = _box_of_mask(encoded)  # the part inside the image
        notes.change("outlines that reach outside their image, whose box ends at its border", shape.place)
    x1, y1, x2, y2 = (round(value, _DIGITS) for value in _clipped(box, height, width))
    if x2 <= x1 or y2 <= y1:
        notes.skip("objects without area in their image", shape.place)
        return None
    if shape.box and _excess(box, height, width) > 10**-_DIGITS:
        notes.change("boxes that reach outside their image, which are clipped", shape.place)
    own: dict[str, Any] = {"bbox": [x1, y1, round(x2 - x1, _DIGITS), round(y2 - y1, _DIGITS)]}
    area = own["bbox"][2] * own["bbox"][3] if encoded is None else float(coco_mask.area(encoded))
    if area <= 0:
        notes.skip("objects whose mask has no pixel", shape.place)
        return None
    own |= {"area": round(area, _DIGITS), "iscrowd": int(shape.crowd)}
    if shape.polygons:
        own["segmentation"] = [list(polygon) for polygon in shape.polygons]
    elif encoded is not None:
        counts = encoded["counts"]
        text = counts.decode() if isinstance(counts, bytes) else counts
        own["segmentation"] = {"size": [height, width], "counts": text}
    elif box_masks:
        own["segmentation"] = [[round(value, _DIGITS) for value in box_polygon((x1, y1, x2, y2))]]
    return own


def _rounded_polygons(shape: Shape, notes: Notes) -> tuple[Polygon, ...]:
    """Return the polygons of three points or more, in hundredths of pixels."""
    kept = tuple(
        tuple(round(value, _DIGITS) for value in polygon)
        for polygon in shape.polygons
        if len(polygon) >= _MIN_COORDINATES
    )
    if len(kept) < len(shape.polygons):
        note = notes.change if kept or shape.box else notes.skip
        note("polygons with fewer than three points", shape.place)
    return kept


def _box_of_mask(encoded: Any) -> Box:
    x, y, width, height = (float(value) for value in coco_mask.toBbox(encoded))
    return x, y, x + width, y + height


def _clipped(box: Box, height: int, width: int) -> Box:
    x1, y1, x2, y2 = box
    return (
        min(max(x1, 0.0), width),
        min(max(y1, 0.0), height),
        min(max(x2, 0.0), width),
        min(max(y2, 0.0), height),
    )


def _excess(box: Box, height: int, width: int) -> float:
    """Return how far a box reaches outside its image, in pixels; negative inside."""
    x1, y1, x2, y2 = box
    return max(-x1, -y1, x2 - width, y2 - height)


def _summary(split: str, content: dict[str, Any]) -> str:
    images, annotations = content["images"], content["annotations"]
    with_objects = {annotation["image_id"] for annotation in annotations}
    counts = Counter(annotation["category_id"] for annotation in annotations)
    classes = ", ".join(f"{category['name']} {counts[category['id']]}" for category in content["categories"])
    empty = len(images) - len(with_objects)
    background = f" ({empty} without objects)" if empty else ""
    return f"{split}{_YEAR}: {len(images)} images{background}, {len(annotations)} objects: {classes}"
