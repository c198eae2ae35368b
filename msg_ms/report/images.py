"""Images of a page, encoded so that it stays small."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image as PillowImage

from .content import Image

QUALITY = 88  # of JPEG


def jpeg(pixels: np.ndarray, *lines: str) -> Image:
    """Return an image for the page.

    Args:
        pixels: uint8 RGB (H, W, 3).
        lines: The lines below it.
    """
    stream = io.BytesIO()
    PillowImage.fromarray(pixels).save(stream, "JPEG", quality=QUALITY)
    return Image(stream.getvalue(), "image/jpeg", lines)
