"""Pictures with captions on one sheet, and how pictures are written."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from ..files import atomic_write

TILE, CAPTION, COLUMNS = 160, 24, 5  # pixels, pixels, pictures per row
MARGIN = 4
FONT = cv2.FONT_HERSHEY_SIMPLEX


def write_png(path: Path, picture: np.ndarray) -> None:
    """Write uint8 RGB (H, W, 3), the file whole or not at all; UserError where the disk doesn't take it."""
    encoded = cv2.imencode(".png", picture[..., ::-1])[1]
    with atomic_write(path) as temporary:
        temporary.write_bytes(encoded.tobytes())


def put_text(picture: np.ndarray, text: str, left: int, base: int, width: int, scale: float = 0.5) -> None:
    """Write ``text`` in black with its base line at ``base``, cut with two dots where it is wider than ``width``."""

    def pixels(content: str) -> int:
        return cv2.getTextSize(content, FONT, scale, 1)[0][0]

    shown = text
    while pixels(shown) > width and len(shown) > 3:
        shown = shown[:-3] + ".."
    cv2.putText(picture, shown, (left, base), FONT, scale, (0, 0, 0), 1, cv2.LINE_AA)


def as_tile(picture: np.ndarray) -> np.ndarray:
    """uint8 RGB (H, W, 3) scaled into a tile; a picture that was so scaled stays as it is."""
    scale = (TILE - 2 * MARGIN) / max(picture.shape[:2])
    size = [max(1, round(side * scale)) for side in picture.shape[1::-1]]
    return cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST if scale > 4 else cv2.INTER_AREA)


def write_sheet(path: Path, pictures: list[np.ndarray], captions: list[str]) -> None:
    """Write uint8 RGB pictures (H, W, 3) in rows, each scaled into a tile with its caption below, as one PNG."""
    rows = -(-len(pictures) // COLUMNS)
    sheet = np.full((rows * (TILE + CAPTION), min(COLUMNS, len(pictures)) * TILE, 3), 255, np.uint8)
    for n, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        top, left = n // COLUMNS * (TILE + CAPTION), n % COLUMNS * TILE
        tile = as_tile(picture)
        sheet[top + MARGIN :, left + MARGIN :][: tile.shape[0], : tile.shape[1]] = tile
        put_text(sheet, caption, left + 6, top + TILE + CAPTION - 8, TILE - 8)
    write_png(path, sheet)
