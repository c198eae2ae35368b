"""Which windows and shuffle regions every stage has; shape letters as in ``msg_ms/ops/windows.py``."""

from __future__ import annotations

from ..errors import UserError
from ..ops.windows import shuffle_messages, window_partition, window_reverse

__all__ = ["Layouts", "shuffle_messages", "stage_layouts", "window_partition", "window_reverse"]

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
