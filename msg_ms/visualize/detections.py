"""Drawings of objects: boxes, masks and captions."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ..files import readable
from .contact_sheet import FONT

SMALLEST = 480  # pixels of the long side; smaller images are enlarged, so that captions fit
OPACITY = 0.45  # of masks
COLORS = (
    *((230, 60, 60), (60, 140, 230), (50, 170, 80), (240, 150, 30), (150, 80, 200)),
    *((20, 180, 180), (220, 90, 170), (150, 110, 60), (110, 120, 0), (90, 90, 220)),
)


def draw_objects(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: Sequence[int],
    captions: Sequence[str],
    masks: Sequence[np.ndarray] = (),
) -> np.ndarray:
    """Return a drawing of an image with its objects, each class in its own colour.

    Args:
        image: uint8 RGB (H, W, 3).
        boxes: (N, 4), (x1, y1, x2, y2) in pixels.
        labels: Class of each object.
        captions: Text above each box.
        masks: Mask of each object, bool (H, W); none are drawn if there are none.
    """
    blended = image.astype(np.float32)
    for mask, label in zip(masks, labels, strict=bool(len(masks))):
        blended[mask] += OPACITY * (np.array(COLORS[label % len(COLORS)], np.float32) - blended[mask])
    scale = max(1.0, SMALLEST / max(image.shape[:2]))
    size = [round(side * scale) for side in image.shape[1::-1]]
    drawing = cv2.resize(blended.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    for box, label, caption in zip(boxes, labels, captions, strict=True):
        x1, y1, x2, y2 = (round(float(side) * scale) for side in box)
        color = COLORS[label % len(COLORS)]
        cv2.rectangle(drawing, (x1, y1), (x2, y2), color, 2)
        _put_caption(drawing, readable(caption), x1, y1, color)
    return drawing


def _put_caption(drawing: np.ndarray, text: str, left: int, top: int, color: tuple[int, int, int]) -> None:
    """Write white text on the colour of a box, above the box or at its top."""
    (width, height), base = cv2.getTextSize(text, FONT, 0.5, 1)
    low = max(top, height + base)
    cv2.rectangle(drawing, (left, low - height - base), (left + width, low), color, -1)
    cv2.putText(drawing, text, (left, low - base // 2), FONT, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
