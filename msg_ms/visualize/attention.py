"""The message tokens' attention drawn over the picture, a panel per stage."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ..models.messages import attention_maps
from ..models.windows import StageGeometry
from .contact_sheet import put_text

SIDE, GAP, HEAD, FOOT = 320, 12, 24, 24  # pixels: a panel's height at least, between panels, above and below them
HEAT = 0.7  # how much of a panel's colour is the attention's; the rest is the picture in grey
WINDOW_LINE, REGION_LINE = (255, 255, 255), (0, 220, 255)


def draw_messages(
    crop: np.ndarray, weights: Sequence[np.ndarray], layouts: Sequence[StageGeometry], window_size: int, caption: str
) -> np.ndarray:
    """One row: the model's input, uint8 RGB (H, W, 3), then for each stage what its message tokens attend to.

    ``weights``: of each stage, for this picture, (R, G, N) as :func:`msg_ms.models.messages.message_weights` gives
    them. A panel's scale runs from no attention (dark) to its largest weight (bright), which stands below it in
    multiples of an even share, 1/N. White lines part the windows, blue ones the shuffle regions.
    """
    zoom = -(-SIDE // crop.shape[0])
    picture = cv2.resize(crop, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_NEAREST)
    panels = [_framed(picture, caption, f"{crop.shape[0]} x {crop.shape[1]} pixels")]
    for stage, (rows, layout) in enumerate(zip(weights, layouts, strict=True), 1):
        height, width, region = layout
        counts = height // window_size, width // window_size
        windows = "one window" if counts == (1, 1) else f"{counts[0]} x {counts[1]} windows"
        heat = attention_maps(rows, layout, window_size)[0]
        panel = _lined(_heated(picture, heat), *counts, region)
        regions = f" in regions of {region} x {region}" if region > 1 else ""
        share = f"brightest {heat.max() * rows.shape[-1]:.1f} x even share; on itself {rows[:, :, 0].mean():.0%}"
        panels.append(_framed(panel, f"stage {stage}: {windows}{regions}", share))
    return np.concatenate(panels, 1)


def stack_rows(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of :func:`draw_messages` below each other."""
    return np.concatenate(rows, 0)


def _heated(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The picture in grey under the attention (H, W) of its tokens, each token a block of its own colour."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    levels = np.round(255 * heat / max(heat.max(), 1e-12)).astype(np.uint8)
    levels = cv2.resize(levels, picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    colors = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1]
    return cv2.addWeighted(np.ascontiguousarray(colors), HEAT, cv2.merge([grey] * 3), 1 - HEAT, 0)


def _lined(panel: np.ndarray, rows: int, columns: int, region: int) -> np.ndarray:
    """With a line between windows, and a thicker one around shuffle regions of ``region`` x ``region`` windows."""
    height, width = panel.shape[:2]
    for step, half, color in ((1, 0, WINDOW_LINE), (region, 1, REGION_LINE)):
        if step == region == 1 and half:  # no shuffle
            break
        for count, length, axis in ((rows, height, 0), (columns, width, 1)):
            for i in range(0 if half else 1, count + half, step):
                at = i * length // count
                np.moveaxis(panel, axis, 0)[max(0, at - half) : at + half + 1] = color
    return panel


def _framed(panel: np.ndarray, above: str, below: str) -> np.ndarray:
    height, width = panel.shape[:2]
    framed = np.full((HEAD + height + FOOT, width + GAP, 3), 255, np.uint8)
    framed[HEAD : HEAD + height, GAP // 2 : GAP // 2 + width] = panel
    for text, base in ((above, HEAD - 8), (below, HEAD + height + FOOT - 8)):
        put_text(framed, text, GAP // 2, base, width, 0.45)
    return framed
