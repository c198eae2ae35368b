"""Windows and shuffle regions of every stage; shape letters as in ``msg_ms/ops/windows.py``."""

from __future__ import annotations

import math
from typing import NamedTuple

from ..errors import UserError
from ..ops.windows import window_partition, window_reverse

__all__ = ["StageGeometry", "fitting_size", "stage_geometry", "window_partition", "window_reverse"]

SMALLEST_WINDOW = 2  # tokens; a window of one token has nothing to attend to


class StageGeometry(NamedTuple):
    """A stage's map of patch tokens and its shuffle regions.

    Attributes:
        height: Height of the map in tokens.
        width: Width of the map in tokens.
        region: Side of a shuffle region in windows.
    """

    height: int
    width: int
    region: int


def stage_geometry(
    height: int, width: int, patch_size: int, window_size: int, shuffle_size: tuple[int, ...]
) -> tuple[StageGeometry, ...]:
    """Return the geometry of every stage for an image.

    If a later stage has only one window, its region is 1 regardless of ``shuffle_size``, as in the paper's code.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        patch_size: Side of a patch token in pixels.
        window_size: Side of a window in tokens.
        shuffle_size: Side of each stage's shuffle regions in windows.

    Raises:
        UserError: If a map cannot be divided into whole regions. The message names the nearest image sides that can,
            and the nearest window sizes that divide this image.
    """
    geometry = _geometry_or_none(height, width, patch_size, window_size, shuffle_size)
    if geometry is not None:
        return geometry
    square = height == width
    unit, single = _fitting_sides(patch_size, window_size, shuffle_size)
    sides = [[n * unit for n in (side // unit, side // unit + 1) if n > 0] for side in (height, width)]
    if square:
        fitting = _join(_nearest(height, sides[0] + [single] * (single > 0)))
    else:
        rows, columns = (_join(_nearest(side, fit)) for side, fit in zip((height, width), sides, strict=True))
        fitting = f"height {rows}, width {columns}"
    windows = [
        w
        for w in range(SMALLEST_WINDOW, min(height, width) // patch_size + 1)
        if _geometry_or_none(height, width, patch_size, w, shuffle_size) is not None
    ]
    other = f"; or, at this size, window_size {_join(_nearest(window_size, windows))}" if windows else ""
    raise UserError(
        f"img_size={height if square else (height, width)} can't be cut into whole windows and shuffle "
        f"regions with patch_size={patch_size}, window_size={window_size}, shuffle_size={list(shuffle_size)}; "
        f"the nearest that fit: {fitting}{other}"
    )


def fitting_size(
    height: int, width: int, patch_size: int, window_size: int, shuffle_size: tuple[int, ...]
) -> tuple[int, int]:
    """Return the smallest size in pixels that ``stage_geometry`` accepts and that holds ``height`` x ``width``."""
    unit, single = _fitting_sides(patch_size, window_size, shuffle_size)
    if max(height, width) <= single:
        return single, single
    return unit * math.ceil(height / unit), unit * math.ceil(width / unit)


def _fitting_sides(patch_size: int, window_size: int, shuffle_size: tuple[int, ...]) -> tuple[int, int]:
    """Return the sides that fit, in pixels: all multiples of the first number, and a square of the second.

    The second is not larger than the first. It leaves one window in the last stage, which needs no region. It is 0 if
    the regions of the earlier stages do not fit.
    """
    window_pixels = [patch_size * window_size * 2**stage for stage in range(len(shuffle_size))]
    unit = math.lcm(*(size * pixels for size, pixels in zip(shuffle_size, window_pixels, strict=True)))
    single = window_pixels[-1]
    return unit, single if _geometry_or_none(single, single, patch_size, window_size, shuffle_size) else 0


def _nearest(value: int, choices: list[int]) -> list[int]:
    """Return the largest of ``choices`` up to ``value`` and the smallest above it, if they exist."""
    choices = sorted(set(choices))
    if value in choices:
        return [value]
    return [c for c in choices if c < value][-1:] + [c for c in choices if c > value][:1]


def _join(numbers: list[int]) -> str:
    return " or ".join(map(str, numbers))


def _geometry_or_none(
    height: int, width: int, patch_size: int, window_size: int, shuffle_size: tuple[int, ...]
) -> tuple[StageGeometry, ...] | None:
    stages = []
    for stage, region in enumerate(shuffle_size):
        window_pixels = patch_size * window_size * 2**stage
        rows, columns = height // window_pixels, width // window_pixels
        region = 1 if stage > 0 and rows == columns == 1 else region
        whole = rows * window_pixels == height and columns * window_pixels == width
        if not whole or rows == 0 or columns == 0 or rows % region or columns % region:
            return None
        stages.append(StageGeometry(rows * window_size, columns * window_size, region))
    return tuple(stages)
