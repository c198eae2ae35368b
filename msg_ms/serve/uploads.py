"""Uploaded files: images within limits, or a message for the person who sent something else."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..data.pixels.decode import decode
from ..data.pixels.image_files import failure_reason
from ..errors import UserError, printable

# Pillow has readers of further formats; one of them runs Ghostscript.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
MEGA = 10**6


@dataclass(frozen=True)
class Limits:
    """The largest image that is accepted.

    Attributes:
        megabytes: Size of the file.
        megapixels: Height times width; a small file may have many.
    """

    megabytes: int = 20
    megapixels: int = 25

    @property
    def bytes(self) -> int:
        """Size of the file in bytes."""
        return self.megabytes * MEGA


def read_upload(path: Path, limits: Limits) -> np.ndarray:
    """Return an uploaded image, uint8 RGB (H, W, 3).

    The header is checked before anything is decoded, so memory is in proportion to the limits.

    Args:
        path: The file.
        limits: The largest image that is accepted.

    Raises:
        UserError: The file is too large, has too many pixels, or is not an image.
    """
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= limits.bytes else b""
    except OSError:
        raise UserError("This file is not kept any more; drop it again.") from None
    if not content and size:
        raise UserError(f"This file has {size / MEGA:,.0f} MB; at most {limits.megabytes} MB are accepted.")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
    except Image.DecompressionBombError:
        raise UserError(f"This image has too many pixels; at most {limits.megapixels} million are accepted.") from None
    except Exception as error:  # damaged files raise errors of many kinds
        raise UserError(_no_image(error)) from None
    if height * width > limits.megapixels * MEGA:
        raise UserError(
            f"This image has {width:,} x {height:,} pixels; at most {limits.megapixels} million are accepted."
        )
    try:
        return decode(content)
    except Exception as error:
        raise UserError(_no_image(error)) from None


def _no_image(error: Exception) -> str:
    known = "JPEG, PNG, BMP, GIF, PGM, PPM, TIFF and WebP are read"
    if isinstance(error, UnidentifiedImageError):
        return f"This file is not an image: {known}."
    return f"This image can't be read ({printable(failure_reason(error), 200)}): {known}."
