"""Which windows and shuffle regions every stage has; shape letters as in ``msg_ms/ops/windows.py``."""

from __future__ import annotations

from itertools import product
from math import ceil, lcm

from ..errors import UserError
from ..ops.windows import shuffle_messages, window_partition, window_reverse

__all__ = ["Layouts", "fitting_size", "shuffle_messages", "stage_layouts", "window_partition", "window_reverse"]

Layouts = tuple[tuple[int, int, int], ...]


def stage_layouts(height: int, width: int, patch_size: int, window_size: int, shuffle_size: tuple[int, ...]) -> Layouts:
    """The (H, W, s) of every stage for an image of ``height`` x ``width`` pixels: map size in tokens, region size.

    A later stage whose map is a single window has nothing to shuffle, so its region size is 1 whatever
    ``shuffle_size`` says (as in the paper's code). Raises UserError where a map can't be cut into whole
    regions, naming the nearest square sizes that can.
    """
    layouts = _layouts_or_none(height, width, patch_size, window_size, shuffle_size)
    if layouts is not None:
        return layouts
    unit = patch_size * window_size
    middle = min(height, width) // unit
    searched = [*range(middle, 0, -1)][:64], range(middle + 1, middle + 257)
    fitting = [
        next(
            (n * unit for n in side if _layouts_or_none(n * unit, n * unit, patch_size, window_size, shuffle_size)),
            None,
        )
        for side in searched
    ]
    raise UserError(
        f"img_size={height if height == width else (height, width)} can't be cut into whole windows and shuffle "
        f"regions with patch_size={patch_size}, window_size={window_size}, shuffle_size={list(shuffle_size)}; "
        f"the nearest that fit: {' and '.join(str(size) for size in fitting if size) or 'none'}"
    )


def fitting_size(
    height: int, width: int, patch_size: int, window_size: int, shuffle_size: tuple[int, ...]
) -> tuple[int, int]:
    """The smallest image, in pixels, that holds ``height`` x ``width`` and that :func:`stage_layouts` takes."""
    # The last stage's window is the coarsest; a side that is a multiple of every stage's region always fits.
    window_pixels = [patch_size * window_size * 2**stage for stage in range(len(shuffle_size))]
    unit = window_pixels[-1]
    region = lcm(*(size * pixels for size, pixels in zip(shuffle_size, window_pixels, strict=True)))
    sides = [range(ceil(side / unit), ceil(side / unit) + region // unit) for side in (height, width)]
    return min(
        ((rows * unit, columns * unit) for rows, columns in product(*sides)
         if _layouts_or_none(rows * unit, columns * unit, patch_size, window_size, shuffle_size)),
        key=lambda size: (size[0] * size[1], size),
    )  # fmt: skip


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
