"""Attention of the MSG tokens drawn over the image, one panel per stage."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ..models.messages import attention_maps
from ..models.windows import StageGeometry
from .contact_sheet import put_text

SIDE, GAP, HEAD, FOOT = 320, 12, 24, 24  # pixels: minimum height of a panel, space between, above and below panels
HEAT = 0.7  # opacity of the attention over the grey image
WINDOW_LINE, REGION_LINE = (255, 255, 255), (0, 220, 255)


def draw_msg_attention(
    crop: np.ndarray, weights: Sequence[np.ndarray], geometry: Sequence[StageGeometry], window_size: int, caption: str
) -> np.ndarray:
    """Draw one row: the model's input, then a panel per stage with the attention of its MSG tokens.

    Each panel has its own scale, from no attention (dark) to the largest weight (bright). The caption below shows the
    largest weight as a multiple of uniform attention, 1/N. White lines separate windows, light blue lines shuffle
    regions.

    Args:
        crop: The model's input, uint8 RGB (H, W, 3).
        weights: For each stage the attention weights of the MSG tokens, (R, G, N): R regions of G windows with N
            tokens each, the MSG token first. Each row sums to 1.
        geometry: The geometry of each stage.
        window_size: Side of a window in tokens.
        caption: Text above the input.

    Returns:
        uint8 RGB (height, width, 3).
    """
    zoom = -(-SIDE // crop.shape[0])
    image = cv2.resize(crop, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_NEAREST)
    panels = [_add_frame(image, caption, f"{crop.shape[0]} x {crop.shape[1]} pixels")]
    for stage, (rows, stage_geometry) in enumerate(zip(weights, geometry, strict=True), 1):
        height, width, region = stage_geometry
        counts = height // window_size, width // window_size
        windows = "one window" if counts == (1, 1) else f"{counts[0]} x {counts[1]} windows"
        heat = attention_maps(rows, stage_geometry, window_size)[0]
        panel = _draw_lines(_overlay(image, heat), *counts, region)
        regions = f" in regions of {region} x {region}" if region > 1 else ""
        legend = f"maximum {heat.max() * rows.shape[-1]:.1f} x uniform; on itself {rows[:, :, 0].mean():.0%}"
        panels.append(_add_frame(panel, f"stage {stage}: {windows}{regions}", legend))
    return np.concatenate(panels, 1)


def stack_rows(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Stack rows of ``draw_msg_attention`` vertically."""
    return np.concatenate(rows, 0)


def _overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Draw the attention (H, W) of the tokens over the grey image, one coloured block per token."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    levels = np.round(255 * heat / max(heat.max(), 1e-12)).astype(np.uint8)
    levels = cv2.resize(levels, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    colors = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1]
    return cv2.addWeighted(np.ascontiguousarray(colors), HEAT, cv2.merge([grey] * 3), 1 - HEAT, 0)


def _draw_lines(panel: np.ndarray, rows: int, columns: int, region: int) -> np.ndarray:
    """Draw lines between windows, and thicker ones around shuffle regions of ``region`` x ``region`` windows."""
    height, width = panel.shape[:2]
    for step, half, color in ((1, 0, WINDOW_LINE), (region, 1, REGION_LINE)):
        if step == region == 1 and half:  # no shuffle
            break
        for count, length, axis in ((rows, height, 0), (columns, width, 1)):
            for i in range(0 if half else 1, count + half, step):
                at = i * length // count
                np.moveaxis(panel, axis, 0)[max(0, at - half) : at + half + 1] = color
    return panel


def _add_frame(panel: np.ndarray, above: str, below: str) -> np.ndarray:
    height, width = panel.shape[:2]
    framed = np.full((HEAD + height + FOOT, width + GAP, 3), 255, np.uint8)
    framed[HEAD : HEAD + height, GAP // 2 : GAP // 2 + width] = panel
    for text, base in ((above, HEAD - 8), (below, HEAD + height + FOOT - 8)):
        put_text(framed, text, GAP // 2, base, width, 0.45)
    return framed
