"""Label Studio's JSON and JSON-MIN exports: rectangles, polygons and brushes, in percent of the image."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from ...boxes.rle import encode_rle
from ...errors import UserError
from ..images.class_files import composed
from .brush import decode_brush
from .image_index import NOT_FOUND, ImageIndex
from .json_files import read_json
from .notes import Notes
from .shapes import Labelled, LabelledImage, Shape, box_polygon
from .xml_files import BadValue

_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")  # before the name of an uploaded file
_LABELS = "labels"  # the end of the key with the classes, such as rectanglelabels


def is_label_studio(content: Any) -> bool:
    """Return whether the content of a JSON file is a list of Label Studio's tasks."""
    if not isinstance(content, list) or not all(isinstance(task, dict) for task in content):
        return False
    return any("annotations" in task or "annotation_id" in task or "completions" in task for task in content)


def read_label_studio(file: Path, index: ImageIndex, notes: Notes) -> Labelled:
    """Read rectangles, polygons and brushes in Label Studio's form.

    Args:
        file: The JSON or JSON-MIN file.
        index: The images.
        notes: Receives tasks and objects that are skipped or changed.

    Raises:
        UserError: It is not JSON, or not a list of tasks.
    """
    content = read_json(file)
    if not is_label_studio(content):
        raise UserError(f"{file}: not a list of Label Studio's tasks; export the project as JSON or JSON-MIN")
    images: list[LabelledImage] = []
    for number, task in enumerate(content, 1):
        place = f"{file}, task {task.get('id', number)}"
        results = _results(task, place, notes)
        if results is None:
            continue
        image = _image(task, place, index, notes)
        if image is not None:
            image.shapes = list(_shapes(results, image, place, notes))
            images.append(image)
    index.note_unused()
    return Labelled("Label Studio", images)


def _results(task: dict[str, Any], place: str, notes: Notes) -> list[Any] | None:
    """Return the results of a task's annotation; None if nobody has finished one."""
    if "annotations" not in task:  # JSON-MIN: the regions are lists under the names of the tags
        lists = [value for value in task.values() if isinstance(value, list)]
        return [{**region, "value": region} for value in lists for region in value if isinstance(region, dict)]
    finished = [
        annotation
        for annotation in task["annotations"] or []
        if isinstance(annotation, dict) and not annotation.get("was_cancelled")
    ]
    if not finished:
        guessed = " (predictions are not read)" if task.get("predictions") else ""
        notes.skip(f"tasks that nobody has annotated{guessed}", place)
        return None
    if len(finished) > 1:
        notes.skip("further annotations of a task: the ground truth counts, or the newest one", place)
    best = max(finished, key=lambda one: (bool(one.get("ground_truth")), str(one.get("updated_at") or "")))
    results = best.get("result")
    return results if isinstance(results, list) else []


def _image(task: dict[str, Any], place: str, index: ImageIndex, notes: Notes) -> LabelledImage | None:
    data = task.get("data", task)
    texts = [value for value in data.values() if isinstance(value, str)] if isinstance(data, dict) else []
    names = [path for text in texts for path in _file_names(text)]
    if not names:
        notes.skip(NOT_FOUND, f"{place}: no file name")
        return None
    found = index.find(next(filter(index.matching, names), names[0]), place)
    return None if found is None else index.measure(found, None, "", place)


def _file_names(text: str) -> Iterator[str]:
    """Yield the paths that a value of a task may mean: an upload, a local file, or an address."""
    parts = urlsplit(text)
    paths = [*parse_qs(parts.query).get("d", []), unquote(parts.path)]
    for path in paths:
        folder, slash, name = path.rpartition("/")
        if "." in name:
            yield path
            if _UPLOADED.match(name):
                yield f"{folder}{slash}{_UPLOADED.sub('', name, count=1)}"


def _shapes(results: list[Any], image: LabelledImage, place: str, notes: Notes) -> Iterator[Shape]:
    labels: dict[Any, str] = {}  # the class of a region may be a result of its own
    for result in results:
        if isinstance(result, dict) and (label := _label(result)):
            labels.setdefault(result.get("id"), label)
    seen = set()
    for number, result in enumerate(results, 1):
        where = f"{place}, region {number}"
        value = result.get("value") if isinstance(result, dict) else None
        if not isinstance(value, dict) or not {"x", "points", "rle", "format"} & value.keys():
            continue  # a choice or a rating
        region = result.get("id")
        if region is not None and region in seen:
            continue  # the class of a region repeats its place
        seen.add(region)
        own = _label(result) or ("" if region is None else labels.get(region, ""))
        try:
            if "original_width" in result:
                _check_size(result, image)
            yield from _regions(value, own, image, where, notes)
        except BadValue as problem:
            notes.skip(f"regions {problem}", where)


def _label(result: dict[str, Any]) -> str:
    """Return the class of a result; empty without one."""
    value = result.get("value")
    for key, names in value.items() if isinstance(value, dict) else ():
        if key.endswith(_LABELS) and isinstance(names, list) and names and isinstance(names[0], str):
            return composed(names[0].strip())
    return ""


def _check_size(result: dict[str, Any], image: LabelledImage) -> None:
    """Raise BadValue if the region was drawn in another image, or in a turned one."""
    if result.get("image_rotation"):
        raise BadValue("of images that were turned in Label Studio")
    if (result.get("original_height"), result["original_width"]) != (image.height, image.width):
        raise BadValue("of images of another size than in the export")


def _regions(value: dict[str, Any], label: str, image: LabelledImage, place: str, notes: Notes) -> Iterator[Shape]:
    """Yield the object of a region's value."""
    if not label:
        raise BadValue("without a class")
    if "rle" in value or value.get("format") == "rle":
        try:
            mask = decode_brush(value.get("rle") or [], image.height, image.width)
        except (ValueError, OverflowError, TypeError) as error:
            raise BadValue(f"whose brush can't be decoded ({error})") from None
        if not mask.any():
            raise BadValue("whose brush has no pixels")
        yield Shape(label, place, mask=encode_rle(mask, image.height, image.width))
    elif "points" in value:
        points = value["points"]
        if not isinstance(points, list) or not all(isinstance(p, list | tuple) and len(p) == 2 for p in points):
            raise BadValue("whose points are not pairs [x, y]")
        scale = (image.width / 100, image.height / 100)
        outline = tuple(_number(v, "points") * s for point in points for v, s in zip(point, scale, strict=True))
        yield Shape(label, place, polygons=(outline,))
    elif "width" in value and "height" in value and value["width"] is not None:
        x, y, width, height = (_number(value.get(key), key) / 100 for key in ("x", "y", "width", "height"))
        x, y = x * image.width, y * image.height
        box = (x, y, x + width * image.width, y + height * image.height)
        degrees = _number(value.get("rotation") or 0, "rotation")
        if degrees % 360 == 0:
            yield Shape(label, place, box)
        else:
            notes.change("turned boxes: their corners are the outline, and the box is the one around them", place)
            yield Shape(label, place, polygons=(box_polygon(box, degrees, (x, y)),))
    else:
        raise BadValue("that are neither rectangles, polygons nor brushes")


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadValue(f"whose {name} is {'missing' if value is None else 'not a number'}")
    return float(value)
