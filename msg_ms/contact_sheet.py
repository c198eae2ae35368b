"""Pictures with captions on one sheet."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from .errors import UserError

TILE, CAPTION, COLUMNS = 160, 24, 5  # pixels, pixels, pictures per row


def write_sheet(path: Path, pictures: list[np.ndarray], captions: list[str]) -> None:
    """Write uint8 RGB pictures (H, W, 3) in rows, each scaled into a tile with its caption below, as one PNG."""
    rows = -(-len(pictures) // COLUMNS)
    sheet = np.full((rows * (TILE + CAPTION), min(COLUMNS, len(pictures)) * TILE, 3), 255, np.uint8)
    for n, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        top, left = n // COLUMNS * (TILE + CAPTION), n % COLUMNS * TILE
        scale = (TILE - 8) / max(picture.shape[:2])
        size = [max(1, round(side * scale)) for side in picture.shape[1::-1]]
        tile = cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST if scale > 4 else cv2.INTER_AREA)
        sheet[top + 4 : top + 4 + tile.shape[0], left + 4 : left + 4 + tile.shape[1]] = tile[..., ::-1]
        origin = (left + 6, top + TILE + CAPTION - 8)
        cv2.putText(sheet, caption, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), sheet):
        raise UserError(f"can't write {path}")
