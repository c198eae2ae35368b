"""The entries of one element of an annotation file, or why they can't be used."""

from __future__ import annotations

import json
import math
import re
from array import array
from collections.abc import Sequence
from typing import Any

from PIL import Image

from ...errors import printable

_MAX_SIDE = 2**20
_MOST_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 2**62)  # Pillow refuses larger images
_LARGEST_ID = 2**63
# Python's own form of a byte that is not UTF-8 (0xff as U+DCFF) is a name that can be opened.
_HALF_PAIR = re.compile("[\ud800-\udc7f\udd00-\udfff]")


class Malformed(ValueError):
    """An element that can't be used; the text continues the plural of its name, as in "whose id is missing"."""


def image_entries(image: Any) -> tuple[int, int, int, str]:
    """Return id, height, width and file name of an image.

    Raises:
        Malformed: An entry is missing, of another type, or out of range.
    """
    number, height, width = (whole_number(image, key) for key in ("id", "height", "width"))
    for key, side in (("height", height), ("width", width)):
        if not 0 < side < _MAX_SIDE:
            raise Malformed(f"whose {key} is {'not above 0' if side <= 0 else f'above {_MAX_SIDE:,}'}")
    if height * width > _MOST_PIXELS:
        raise Malformed(f"with more than {_MOST_PIXELS:,} pixels, which are not decoded")
    return number, height, width, text(image, "file_name")


def category_entries(category: Any) -> tuple[int, str]:
    """Return id and name of a category; errors are those of ``image_entries``."""
    return whole_number(category, "id"), text(category, "name")


def annotation_entries(annotation: Any) -> tuple[array, array]:
    """Return (id, image, category, crowd) and (x, y, width, height, area) of an annotation.

    Without an area it is that of the box, and without ``iscrowd`` that is 0.

    Raises:
        Malformed: An entry is missing, of another type, or out of range.
    """
    try:  # most annotations take this short way
        crowd = annotation.get("iscrowd", 0)
        integers = array("q", (annotation["id"], annotation["image_id"], annotation["category_id"], crowd))
        x, y, width, height = annotation["bbox"]
        area = annotation.get("area")
        numbers = array("d", (x, y, width, height, width * height if area is None else area))
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
        integers = array("q", (whole_number(annotation, key) for key in ("id", "image_id", "category_id")))
        crowd = 0 if annotation.get("iscrowd") is None else whole_number(annotation, "iscrowd")
        integers.append(crowd)
        x, y, width, height = _box(annotation)
        area = width * height if has_no_area(annotation) else _number(annotation["area"], "whose area")
        numbers = array("d", (x, y, width, height, area))
    if crowd not in (0, 1):
        raise Malformed("whose iscrowd is neither 0 nor 1")
    return integers, numbers


def has_no_area(annotation: dict[str, Any]) -> bool:
    """Return whether an annotation leaves its area to the reader."""
    return annotation.get("area") is None


def whole_number(element: Any, key: str) -> int:
    """Return an entry that is a whole number; 1.0 is one, as some programs write ids so.

    Raises:
        Malformed: The entry is missing, of another type, or beyond 64 bits.
    """
    value = entry(element, key)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, float):
        raise Malformed(f"whose {key} is not a whole number")
    if not isinstance(value, int):
        raise Malformed(f"whose {key} is {kind(value)}, not a whole number")
    if not -_LARGEST_ID <= value < _LARGEST_ID:
        raise Malformed(f"whose {key} is beyond 64 bits")
    return int(value)


def text(element: Any, key: str) -> str:
    """Return an entry that is text.

    Raises:
        Malformed: The entry is missing, empty, of another type, or half of a Unicode pair.
    """
    value = entry(element, key)
    if not isinstance(value, str):
        raise Malformed(f"whose {key} is {kind(value)}, not text")
    if not value.strip():
        raise Malformed(f"whose {key} is empty")
    if _HALF_PAIR.search(value):
        raise Malformed(f"whose {key} holds half of a surrogate pair, which is not Unicode text")
    return value


def entry(element: Any, key: str) -> Any:
    """Return an entry; raise Malformed if it is missing or null, or the element is not an object."""
    if not isinstance(element, dict):
        raise Malformed(f"that are {kind(element)}, not an object")
    if element.get(key) is None:
        raise Malformed(f"whose {key} is {'null' if key in element else 'missing'}")
    return element[key]


def kind(value: Any) -> str:
    """Return the type of a JSON value in words."""
    names = {str: "text", list: "a list", dict: "an object", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def shown(element: Any, number: int) -> str:
    """Return the place of an element in its list, and its id if it has one.

    Args:
        element: The element.
        number: Its place, from 1.
    """
    own = element.get("id") if isinstance(element, dict) else None
    if own is None:
        return f"number {number}"
    try:
        own = json.dumps(own, ensure_ascii=False) if isinstance(own, str | int | float) else kind(own)
    except ValueError:  # a number of more digits than Python writes
        own = "a long number"
    return f"number {number} (id {printable(own, 40)})"


def _box(annotation: dict[str, Any]) -> Sequence[float]:
    box = entry(annotation, "bbox")
    if not isinstance(box, list):
        hint = " of x, y, width, height" if isinstance(box, dict) else ""
        raise Malformed(f"whose bbox is {kind(box)}{hint}, not a list [x, y, width, height]")
    if len(box) != 4:
        raise Malformed(f"whose bbox has {len(box)} entries, not four: [x, y, width, height]")
    return [_number(value, "whose bbox holds an entry that") for value in box]


def _number(value: Any, title: str) -> float:
    if not isinstance(value, int | float):
        raise Malformed(f"{title} is {kind(value)}, not a number")
    try:
        return float(value)
    except OverflowError:
        return math.inf  # is refused with the other numbers that are not finite
