"""Which windows and shuffle regions every stage has; shape letters as in ``msg_ms/ops/windows.py``."""

from __future__ import annotations

import math

from ..errors import UserError
from ..ops.windows import shuffle_messages, window_partition, window_reverse

__all__ = ["Layouts", "fitting_size", "shuffle_messages", "stage_layouts", "window_partition", "window_reverse"]

Layouts = tuple[tuple[int, int, int], ...]
SMALLEST_WINDOW = 2  # worth proposing: a message to a single token says nothing new


def stage_layouts(height: int, width: int, patch_size: int, window_size: int, shuffle_size: tuple[int, ...]) -> Layouts:
    """The (H, W, s) of every stage for an image of ``height`` x ``width`` pixels: map size in tokens, region size.

    A later stage whose map is a single window has nothing to shuffle, so its region size is 1 whatever
    ``shuffle_size`` says (as in the paper's code). Raises UserError where a map can't be cut into whole
    regions, naming the nearest sides that can, and the nearest windows that cut this size.
    """
    layouts = _layouts_or_none(height, width, patch_size, window_size, shuffle_size)
    if layouts is not None:
        return layouts
    square = height == width
    unit, lone = _fitting_sides(patch_size, window_size, shuffle_size)
    sides = [[n * unit for n in (side // unit, side // unit + 1) if n > 0] for side in (height, width)]
    if square:
        fitting = _words(_nearest(height, sides[0] + [lone] * (lone > 0)))
    else:
        rows, columns = (_words(_nearest(side, fit)) for side, fit in zip((height, width), sides, strict=True))
        fitting = f"height {rows}, width {columns}"
    windows = [
        w
        for w in range(SMALLEST_WINDOW, min(height, width) // patch_size + 1)
        if _layouts_or_none(height, width, patch_size, w, shuffle_size) is not None
    ]
    other = f"; or, at this size, window_size {_words(_nearest(window_size, windows))}" if windows else ""
    raise UserError(
        f"img_size={height if square else (height, width)} can't be cut into whole windows and shuffle "
        f"regions with patch_size={patch_size}, window_size={window_size}, shuffle_size={list(shuffle_size)}; "
        f"the nearest that fit: {fitting}{other}"
    )


def fitting_size(
    height: int, width: int, patch_size: int, window_size: int, shuffle_size: tuple[int, ...]
) -> tuple[int, int]:
    """The smallest image, in pixels, that holds ``height`` x ``width`` and that :func:`stage_layouts` takes."""
    unit, lone = _fitting_sides(patch_size, window_size, shuffle_size)
    if max(height, width) <= lone:
        return lone, lone
    return unit * math.ceil(height / unit), unit * math.ceil(width / unit)


def _fitting_sides(patch_size: int, window_size: int, shuffle_size: tuple[int, ...]) -> tuple[int, int]:
    """What fits, in pixels: both sides multiples of the first number, or a square of the second, which is no larger.

    The latter ends as a single window, which needs no region; 0 where the earlier stages' regions don't fit it.
    """
    window_pixels = [patch_size * window_size * 2**stage for stage in range(len(shuffle_size))]
    unit = math.lcm(*(size * pixels for size, pixels in zip(shuffle_size, window_pixels, strict=True)))
    lone = window_pixels[-1]
    return unit, lone if _layouts_or_none(lone, lone, patch_size, window_size, shuffle_size) else 0


def _nearest(value: int, choices: list[int]) -> list[int]:
    """The largest of ``choices`` up to ``value`` and the smallest above, of those that there are."""
    choices = sorted(set(choices))
    if value in choices:
        return [value]
    return [c for c in choices if c < value][-1:] + [c for c in choices if c > value][:1]


def _words(numbers: list[int]) -> str:
    return " or ".join(map(str, numbers))


def _layouts_or_none(
    height: int, width: int, patch_size: int, window_size: int, shuffle_size: tuple[int, ...]
) -> Layouts | None:
    layouts = []
    for stage, region in enumerate(shuffle_size):
        window_pixels = patch_size * window_size * 2**stage
        rows, columns = height // window_pixels, width // window_pixels
        region = 1 if stage > 0 and rows == columns == 1 else region
        whole = rows * window_pixels == height and columns * window_pixels == width
        if not whole or rows == 0 or columns == 0 or rows % region or columns % region:
            return None
        layouts.append((rows * window_size, columns * window_size, region))
    return tuple(layouts)
