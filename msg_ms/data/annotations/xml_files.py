"""XML files of annotation programs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ...errors import UserError
from ...files import head_of_file

_HEAD = 4096  # bytes that hold the first element


class BadValue(ValueError):
    """A value that can't be used; the text says why, in the plural of the thing that has it."""


def root_tag(path: Path) -> str:
    """Return the name of a file's first element; empty if it is not XML."""
    parser: ElementTree.XMLPullParser = ElementTree.XMLPullParser(["start"])
    try:
        parser.feed(head_of_file(path, _HEAD) or b"")
        first: Any = next(iter(parser.read_events()), None)
    except ElementTree.ParseError:
        return ""
    return "" if first is None else str(first[1].tag)


def parse_xml(path: Path) -> ElementTree.Element:
    """Return the first element of an XML file.

    Raises:
        UserError: The file can't be read or is not XML. Python's parser limits the expansion of entities, and reads
            none from other files.
    """
    try:
        return ElementTree.parse(path).getroot()
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror or error}") from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(f"{path}: not valid XML: {error}") from None


def text_of(element: ElementTree.Element, tag: str) -> str:
    """Return the text of a child without blanks around it; empty if there is none."""
    return (element.findtext(tag) or "").strip()


def number_from(text: str | None, name: str) -> float:
    """Return a number.

    Args:
        text: The text in the file.
        name: Its name, for the error.

    Raises:
        BadValue: It is missing, not a number, or not finite.
    """
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadValue(f"whose {name} is {'missing' if not text else 'not a number'}")
    return value
