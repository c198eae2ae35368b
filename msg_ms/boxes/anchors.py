"""Anchors of the region proposal network and which of them are used, in NumPy and bit for bit as in mmdetection."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

STRIDES = (4, 8, 16, 32, 64)
RATIOS = (0.5, 1.0, 2.0)
SCALE = 8


def base_anchors(stride: int, ratios: Sequence[float] = RATIOS, scale: float = SCALE) -> np.ndarray:
    """Return the anchors of the cell at the origin.

    Args:
        stride: pixels per cell; the side of a square anchor is ``scale * stride``.
        ratios: height / width of each anchor.
        scale: side in strides.

    Returns:
        (ratios, 4), float32, centred on (0, 0).
    """
    root = np.sqrt(np.array(ratios, np.float32))
    size = np.float32(stride)
    widths = size * (np.float32(1) / root) * np.float32(scale)
    heights = size * root * np.float32(scale)
    half = np.float32(0.5)
    return np.stack([-half * widths, -half * heights, half * widths, half * heights], 1)


def level_shapes(height: int, width: int, strides: Sequence[int] = STRIDES) -> list[tuple[int, int]]:
    """Return rows and columns of the feature map of each level.

    Args:
        height: height of the padded batch in pixels.
        width: width of the padded batch in pixels.
        strides: pixels per cell.

    Returns:
        (rows, columns) of each level; sides are rounded up.
    """
    return [(-(-height // stride), -(-width // stride)) for stride in strides]


def grid_anchors(
    shapes: Sequence[tuple[int, int]],
    strides: Sequence[int] = STRIDES,
    ratios: Sequence[float] = RATIOS,
    scale: float = SCALE,
) -> list[np.ndarray]:
    """Return the anchors of each level, centred on (column * stride, row * stride).

    Args:
        shapes: rows and columns of each level.
        strides: pixels per cell of each level.
        ratios: as in ``base_anchors``.
        scale: as in ``base_anchors``.

    Returns:
        For each level (rows * columns * ratios, 4), float32, in the order row, column, ratio.
    """
    levels = []
    for (rows, columns), stride in zip(shapes, strides, strict=True):
        x, y = (np.arange(count, dtype=np.float32) * np.float32(stride) for count in (columns, rows))
        x, y = np.meshgrid(x, y)
        shifts = np.stack([x, y, x, y], -1).reshape(-1, 1, 4)
        levels.append((shifts + base_anchors(stride, ratios, scale)).reshape(-1, 4))
    return levels


def inside_flags(anchors: np.ndarray, img_shape: Sequence[int]) -> np.ndarray:
    """Return which anchors are inside the image.

    Args:
        anchors: (A, 4).
        img_shape: height and width of the image without padding.

    Returns:
        (A,), bool.
    """
    height, width = img_shape
    x1, y1, x2, y2 = anchors.T
    return (x1 >= 0) & (y1 >= 0) & (x2 < width) & (y2 < height)
