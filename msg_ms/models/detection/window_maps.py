"""Stages of any size: their windows, the padding of patches to windows, and of MSG tokens to shuffle regions.

Shape letters as in ``msg_ms/ops/windows.py``. A stage's patches H x W need not fill its windows. The grid of MSG tokens
has ceil(H / w) x ceil(W / w) windows, and need not fill its shuffle regions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from mindspore import Tensor
from mindspore.ops import constexpr

from ...ops import Transpose, pad_axis
from ..windows import StageGeometry, window_partition, window_reverse


class WindowMap(NamedTuple):
    """A stage's map of patch tokens and its windows.

    Attributes:
        height: Height of the map in tokens.
        width: Width of the map in tokens.
        rows: Rows of windows, the last of which may be padded.
        columns: Columns of windows.
        region: Side of a shuffle region in windows.
        whole: Whether the map fills its windows and the windows fill their regions. The tokens are grouped by region
            then. Otherwise every window is a region of its own there, and the shuffle is done on the grid.
        geometry: The geometry of the padded map, by which the tokens are grouped.
    """

    height: int
    width: int
    rows: int
    columns: int
    region: int
    whole: bool
    geometry: StageGeometry


def stage_maps(
    height: int, width: int, patch_size: int, window_size: int, shuffle_size: tuple[int, ...]
) -> tuple[WindowMap, ...]:
    """Return the map and windows of every stage for an image of any size.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        patch_size: Side of a patch token in pixels.
        window_size: Side of a window in tokens.
        shuffle_size: Side of each stage's shuffle regions in windows.
    """
    maps_of_stages = []
    height, width = -(-height // patch_size), -(-width // patch_size)
    for region in shuffle_size:
        rows, columns = -(-height // window_size), -(-width // window_size)
        filled = height == rows * window_size and width == columns * window_size
        whole = filled and rows % region == columns % region == 0
        geometry = StageGeometry(rows * window_size, columns * window_size, region if whole else 1)
        maps_of_stages.append(WindowMap(height, width, rows, columns, region, whole, geometry))
        height, width = -(-height // 2), -(-width // 2)
    return tuple(maps_of_stages)


def shuffle_grid(x: Tensor, region: int) -> Tensor:
    """Shuffle a grid of MSG tokens whose sides need not be multiples of the region's.

    The grid is padded with zeros at the right and at the bottom to whole regions, and cropped afterwards. A slice that
    is sent to a padded slot is lost, and a padded slot sends zeros.

    Args:
        x: MSG tokens (B, C, rows, columns).
        region: Side s of a shuffle region in windows.

    Returns:
        Tensor of the same shape.
    """
    _, _, rows, columns = x.shape
    x = exchange_slices(pad_images(x, -rows % region, -columns % region), region)
    return x[:, :, :rows, :columns]


def exchange_slices(x: Tensor, region: int) -> Tensor:
    """Shuffle a grid of MSG tokens (B, C, rows, columns) of whole regions."""
    _, channels, rows, columns = x.shape
    high, wide = rows // region, columns // region
    # (slice y, slice x, channel, high, slot y, wide, slot x): slice k of slot g goes to slice g of slot k.
    x = x.reshape(-1, region, region, channels // region**2, high, region, wide, region)
    return x.transpose(0, 5, 7, 3, 4, 1, 6, 2).reshape(-1, channels, rows, columns)


def to_map(patches: Tensor, window_map: WindowMap, window_size: int, transpose: Transpose | None = None) -> Tensor:
    """Return the patches of a stage's windows as a map (B, C, H, W) without padding."""
    height, width, region = window_map.geometry
    patches = window_reverse(patches, window_size, region, height, width, True, transpose)
    return patches[:, :, : window_map.height, : window_map.width]


def to_grid(messages: Tensor, window_map: WindowMap) -> Tensor:
    """Return MSG tokens (B*R, G, 1, C) as a grid (B, C, rows, columns)."""
    return window_reverse(messages, 1, window_map.geometry[2], window_map.rows, window_map.columns, channels_first=True)


def to_windows(patches: Tensor, window_map: WindowMap, window_size: int, transpose: Transpose | None = None) -> Tensor:
    """Return a map (B, H, W, C) as padded windows (B*R, G, w*w, C) of a stage."""
    height, width, region = window_map.geometry
    patches = pad_axis(pad_axis(patches, 1, 0, height - window_map.height), 2, 0, width - window_map.width)
    return window_partition(patches, window_size, region, transpose)


def pad_images(x: Tensor, bottom: int, right: int) -> Tensor:
    """Return images (B, C, height, width) with zeros at the bottom and at the right."""
    return pad_axis(pad_axis(x, 2, 0, bottom), 3, 0, right)


@constexpr
def valid_tokens(window_map, window_size):
    """Return 1 for MSG tokens and real patches and 0 for padding, float32 (1, windows*N, 1), in window order."""
    height, width, rows, columns = window_map[:4]
    w = window_size
    inside = np.zeros((rows * w, columns * w), np.float32)
    inside[:height, :width] = 1
    inside = inside.reshape(rows, w, columns, w).transpose(0, 2, 1, 3).reshape(rows * columns, w * w)
    return Tensor(np.concatenate([np.ones((rows * columns, 1), np.float32), inside], 1).reshape(1, -1, 1))


@constexpr
def native_padding(window_map):
    """Return the padding of a stage as ``msg_ms.ops.AttentionBranch`` accepts it, float32 (5,)."""
    return Tensor(np.array(window_map[:5], np.float32))


@constexpr
def first_messages(rows, columns, region):
    """Return each window's row in ``msg_tokens``, int32 (rows*columns,)."""
    y, x = np.divmod(np.arange(rows * columns), columns)
    return Tensor((y % region * region + x % region).astype(np.int32))
