"""A map and its windows, and the exchange of messages: pure functions.

Shape letters: B images, H x W tokens of a map, w window size, s shuffle region size (in windows),
R shuffle regions per image, G = s*s windows of a region, N = w*w + 1 tokens of a window with its message
token in front, C channels. Windows and regions run row by row.
"""

from __future__ import annotations

from mindspore import Tensor, ops


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
