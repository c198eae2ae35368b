"""Windows, shuffle regions and message tokens: pure functions between a map and its windows.

Shape letters: B images, H x W tokens of a map, w window size, s shuffle region size (in windows),
R shuffle regions per image, G = s*s windows of a region, N = w*w + 1 tokens of a window with its message
token in front, C channels. Windows and regions run row by row.
"""

from __future__ import annotations

from mindspore import Tensor, ops

from ..errors import UserError


def window_partition(x: Tensor, window_size: int, shuffle_size: int) -> Tensor:
    """Cut a map into windows, grouped by shuffle region: (B, H, W, C) -> (B*R, G, w*w, C).

    H and W must be multiples of ``window_size * shuffle_size``.
    """
    w, s = window_size, shuffle_size
    _, height, width, channels = x.shape
    x = x.reshape(-1, height // (w * s), s, w, width // (w * s), s, w, channels)
    return x.transpose(0, 1, 4, 2, 5, 3, 6, 7).reshape(-1, s * s, w * w, channels)


def window_reverse(
    windows: Tensor,
    window_size: int,
    shuffle_size: int,
    height: int,
    width: int,
    channels_first: bool = False,
) -> Tensor:
    """Lay windows out as a map again: (B*R, G, w*w, C) -> (B, H, W, C), or (B, C, H, W) if ``channels_first``.

    ``height`` and ``width`` are H and W in tokens.
    """
    w, s = window_size, shuffle_size
    channels = windows.shape[-1]
    x = windows.reshape(-1, height // (w * s), width // (w * s), s, s, w, w, channels)
    if channels_first:
        return x.transpose(0, 7, 1, 3, 5, 2, 4, 6).reshape(-1, channels, height, width)
    return x.transpose(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, height, width, channels)


def shuffle_messages(x: Tensor) -> Tensor:
    """Exchange channel groups between the message tokens of each shuffle region (the paper, section 3.3).

    ``x``: (B*R, G, N, C) with the message token first in each window. The message of window i is cut into G
    groups of C/G channels, and group j goes to window j, where it becomes group i; patch tokens stay. One
    window per region (G = 1) leaves ``x`` as it is.
    """
    regions, windows, _, channels = x.shape
    if windows == 1:
        return x
    messages = x[:, :, 0].reshape(regions, windows, windows, channels // windows)
    messages = messages.transpose(0, 2, 1, 3).reshape(regions, windows, 1, channels)
    return ops.cat((messages, x[:, :, 1:]), 2)


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
