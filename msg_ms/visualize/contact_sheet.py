"""Contact sheets of images with captions, and PNG output."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..errors import UserError
from ..files import atomic_write, head_of_file, readable

TILE, CAPTION, COLUMNS = 160, 24, 5  # pixels, pixels, images per row
MARGIN = 4
SOFTWARE = ("Software", "msg_ms")  # the text in every PNG that this package draws
FONT = cv2.FONT_HERSHEY_SIMPLEX


def write_png(path: Path, image: np.ndarray) -> None:
    """Write an image, uint8 RGB (H, W, 3), with ``SOFTWARE``; raises UserError if the file cannot be written."""
    text = PngInfo()
    text.add_text(*SOFTWARE)
    with atomic_write(path) as temporary:
        Image.fromarray(image).save(temporary, "PNG", pnginfo=text)


def check_ours(path: Path) -> None:
    """Raise UserError if a file exists that this package did not draw, so that it must not be replaced."""
    head = head_of_file(path, 4096)
    if head is not None and b"tEXt" + "\0".join(SOFTWARE).encode() not in head:
        raise UserError(f"{path} exists and is not a drawing of this program: move it, or name another folder")


def put_text(image: np.ndarray, text: str, left: int, base: int, width: int, scale: float = 0.5) -> None:
    """Draw ``text`` in black with its baseline at ``base``; text wider than ``width`` is truncated with two dots."""

    def pixels(content: str) -> int:
        return cv2.getTextSize(content, FONT, scale, 1)[0][0]

    shown = readable(text)
    while pixels(shown) > width and len(shown) > 3:
        shown = shown[:-3] + ".."
    cv2.putText(image, shown, (left, base), FONT, scale, (0, 0, 0), 1, cv2.LINE_AA)


def as_tile(image: np.ndarray, tile: int = TILE) -> np.ndarray:
    """Scale an image, uint8 RGB (H, W, 3), to the size of a tile; a scaled image does not change again."""
    scale = (tile - 2 * MARGIN) / max(image.shape[:2])
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    return cv2.resize(image, size, interpolation=cv2.INTER_NEAREST if scale > 4 else cv2.INTER_AREA)


def write_sheet(path: Path, images: list[np.ndarray], captions: list[str], tile: int = TILE) -> None:
    """Write a PNG with images in rows, see ``draw_sheet``; raises UserError if the file cannot be written."""
    write_png(path, draw_sheet(images, captions, tile))


def draw_sheet(images: list[np.ndarray], captions: list[str], tile: int = TILE) -> np.ndarray:
    """Draw images in rows, each scaled to a tile with its caption below.

    Args:
        images: uint8 RGB (H, W, 3), of any sizes.
        captions: One per image.
        tile: Side of a tile in pixels.

    Returns:
        The drawing, uint8 RGB.
    """
    rows = -(-len(images) // COLUMNS)
    sheet = np.full((rows * (tile + CAPTION), min(COLUMNS, len(images)) * tile, 3), 255, np.uint8)
    for n, (image, caption) in enumerate(zip(images, captions, strict=True)):
        top, left = n // COLUMNS * (tile + CAPTION), n % COLUMNS * tile
        scaled = as_tile(image, tile)
        sheet[top + MARGIN :, left + MARGIN :][: scaled.shape[0], : scaled.shape[1]] = scaled
        put_text(sheet, caption, left + 6, top + tile + CAPTION - 8, tile - 8)
    return sheet
