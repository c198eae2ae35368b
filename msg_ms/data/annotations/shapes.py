"""Objects that people drew in images, in pixels, whichever program they used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Box = tuple[float, float, float, float]
Polygon = tuple[float, ...]


@dataclass(frozen=True)
class Shape:
    """One object of an image, in pixels of the image.

    Attributes:
        label: Name of its class.
        place: Where its annotation is, for messages.
        box: (x1, y1, x2, y2); None if it is the extent of the polygons or of the mask.
        polygons: The parts of its outline, each (x1, y1, x2, y2, ...).
        mask: Run lengths in COCO's compressed form, the size of the image; None without.
        crowd: Whether it is a crowd, which is neither learnt nor counted.
    """

    label: str
    place: str
    box: Box | None = None
    polygons: tuple[Polygon, ...] = ()
    mask: dict[str, Any] | None = None
    crowd: bool = False


@dataclass
class LabelledImage:
    """An image and its objects.

    Attributes:
        file: The image.
        height: Height in pixels.
        width: Width in pixels.
        split: ``train``, ``val``, ``test``, or empty if the source does not say.
        shapes: Its objects; none for a background image.
    """

    file: Path
    height: int
    width: int
    split: str = ""
    shapes: list[Shape] = field(default_factory=list)


@dataclass
class Labelled:
    """The content of an export.

    Attributes:
        program: The format, in words.
        images: The images.
        names: The classes in the order of the export; empty if it has none.
    """

    program: str
    images: list[LabelledImage]
    names: list[str] = field(default_factory=list)


def box_polygon(box: Box, degrees: float = 0.0, pivot: tuple[float, float] | None = None) -> Polygon:
    """Return the corners of a box that is turned clockwise, as (x1, y1, ..., x4, y4).

    Args:
        box: (x1, y1, x2, y2).
        degrees: Angle, clockwise in the image.
        pivot: (x, y) of the point that stays; None for the box's centre.
    """
    x1, y1, x2, y2 = box
    px, py = pivot or ((x1 + x2) / 2, (y1 + y2) / 2)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = [(x - px, y - py) for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))]
    return tuple(value for x, y in corners for value in (px + x * cos - y * sin, py + x * sin + y * cos))


def extent(polygons: Sequence[Polygon]) -> Box:
    """Return the smallest box (x1, y1, x2, y2) around polygons."""
    xs = [x for polygon in polygons for x in polygon[::2]]
    ys = [y for polygon in polygons for y in polygon[1::2]]
    return min(xs), min(ys), max(xs), max(ys)
