"""Windows of a map and the shuffle of MSG tokens, as pure functions.

Shape letters: B images, H x W tokens of a map, w window size in tokens, s shuffle size (a shuffle region is s x s
windows), R shuffle regions per image, G = s*s windows per region, N = w*w + 1 tokens per window with its MSG token
first, C channels. Windows and regions are numbered row by row.
"""

from __future__ import annotations

from mindspore import Tensor, nn, ops

from .transpose import Transpose


def window_partition(
    x: Tensor, window_size: int, shuffle_size: int, transpose: Transpose | None = None, channels_first: bool = False
) -> Tensor:
    """Cut a map into windows, grouped by shuffle region.

    Args:
        x: (B, H, W, C), or (B, C, H, W) if ``channels_first``; H and W are multiples of
            ``window_size * shuffle_size``.
        window_size: w, in tokens.
        shuffle_size: s, in windows.
        transpose: the operator to reorder the axes; None means MindSpore's.
        channels_first: whether the channels are the second axis of ``x``.

    Returns:
        (B*R, G, w*w, C).
    """
    w, s = window_size, shuffle_size
    if channels_first:
        _, channels, height, width = x.shape
        x = x.reshape(-1, channels, height // (w * s), s, w, width // (w * s), s, w)
        return _transposed(x, (0, 2, 5, 3, 6, 4, 7, 1), transpose).reshape(-1, s * s, w * w, channels)
    _, height, width, channels = x.shape
    x = x.reshape(-1, height // (w * s), s, w, width // (w * s), s, w, channels)
    return _transposed(x, (0, 1, 4, 2, 5, 3, 6, 7), transpose).reshape(-1, s * s, w * w, channels)


def window_reverse(
    windows: Tensor,
    window_size: int,
    shuffle_size: int,
    height: int,
    width: int,
    channels_first: bool = False,
    transpose: Transpose | None = None,
) -> Tensor:
    """Join windows into a map, the inverse of ``window_partition``.

    Args:
        windows: (B*R, G, w*w, C).
        window_size: w, in tokens.
        shuffle_size: s, in windows.
        height: H, in tokens.
        width: W, in tokens.
        channels_first: return the channels as the second axis.
        transpose: the operator to reorder the axes; None means MindSpore's.

    Returns:
        (B, H, W, C), or (B, C, H, W) if ``channels_first``.
    """
    w, s = window_size, shuffle_size
    channels = windows.shape[-1]
    x = windows.reshape(-1, height // (w * s), width // (w * s), s, s, w, w, channels)
    if channels_first:
        return _transposed(x, (0, 7, 1, 3, 5, 2, 4, 6), transpose).reshape(-1, channels, height, width)
    return _transposed(x, (0, 1, 3, 5, 2, 4, 6, 7), transpose).reshape(-1, height, width, channels)


def _transposed(x: Tensor, axes: tuple[int, ...], transpose: Transpose | None) -> Tensor:
    return x.transpose(*axes) if transpose is None else transpose(x, axes)


def _shuffled(x: Tensor) -> Tensor:
    regions, windows, _, channels = x.shape
    if windows == 1:
        return x
    msg_tokens = x[:, :, 0].reshape(regions, windows, windows, channels // windows)
    msg_tokens = msg_tokens.transpose(0, 2, 1, 3).reshape(regions, windows, 1, channels)
    return ops.cat((msg_tokens, x[:, :, 1:]), 2)


class ShuffleMessages(nn.Cell):
    """The shuffle of the MSG tokens of each shuffle region (the paper, section 3.3).

    The MSG token of window i is split into G groups of C/G channels. Group j moves to window j, where it becomes
    group i. Patch tokens do not change. With one window per region (G = 1) nothing changes.
    """

    def construct(self, x: Tensor) -> Tensor:
        """Shuffle.

        Args:
            x: (B*R, G, N, C) with the MSG token first in each window; C is a multiple of G.

        Returns:
            Tensor of the same shape.
        """
        return _shuffled(x)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor]:
        """Return the gradient, which is the same shuffle, as the shuffle is its own inverse.

        MindSpore would fill a tensor with zeros for each of the two slices, and add both.
        """
        return (_shuffled(dout),)
