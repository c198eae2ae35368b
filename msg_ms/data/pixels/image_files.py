"""Image files that are read and decoded, and those that can't be."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import ExifTags, Image

from ...errors import UserError
from .decode import decode

SWAPPED = range(5, 9)  # EXIF orientations that swap width and height


class ChangedData(UserError):
    """Error about a file that is not the one that the data set describes: it ends the run at once."""


@dataclass
class BadFiles:
    """Files that could not be decoded, with the reasons.

    Attributes:
        limit: How many of them training accepts.
        fatal: The error that ends the run, once there are more.
        mismatch: An error that ends the run at once: a file is not the one that the data set describes.
    """

    limit: int
    reasons: dict[str, str] = field(default_factory=dict)
    fatal: str | None = None
    mismatch: str | None = None
    reported: int = 0

    def record(self, file: str, error: Exception) -> None:
        """Note a file and why it could not be decoded."""
        self.reasons[file] = failure_reason(error)
        if len(self.reasons) > self.limit and self.fatal is None:
            self.fatal = f"more than DATA.MAX_BAD_FILES={self.limit} files can't be decoded: {', '.join(self.reasons)}"

    def unreported(self) -> list[str]:
        """Return a line for each file recorded since the last call."""
        new = list(self.reasons.items())[self.reported :]
        self.reported += len(new)
        return [f"can't decode {file} ({reason}); another image replaces it" for file, reason in new]


def failure_reason(error: Exception) -> str:
    """Return one line on why a file could not be read or decoded."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    reason = re.sub(r" <_io\.BytesIO object at 0x[0-9a-f]+>", "", reason)  # Pillow's name for its input
    return " ".join(reason.split())


def size_difference(encoded: bytes, size: tuple[int, int], expected: tuple[int, int]) -> str:
    """Return how an image differs from the size that its annotations have, and the remedy.

    Args:
        encoded: Content of the file.
        size: Height and width of its pixels.
        expected: Height and width in the annotations.
    """
    text = f"{size[1]} x {size[0]} pixels (width x height), but the annotations have {expected[1]} x {expected[0]}"
    if size != expected[::-1]:
        return f"{text}: use the original file, or correct the annotations"
    if _orientation_of(encoded) in SWAPPED:
        return (
            f"{text}: viewers turn it by its EXIF orientation, which is ignored here as in COCO's tools; turn the "
            "pixels themselves (Pillow's ImageOps.exif_transpose), or annotate them as they are"
        )
    return f"{text}: width and height are swapped in one of them"


def _orientation_of(encoded: bytes) -> int:
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return exif_orientation(image)
    except Exception:  # not an image
        return 1


def exif_orientation(image: Image.Image) -> int:
    """Return the number of an image's EXIF orientation: 1 for none, above 4 if viewers swap width and height."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF data raise errors of many kinds, and the pixels are fine
        return 1


def read_file(file: str) -> bytes:
    """Return a file's content, with a fifth of the time that ``open`` needs under the interpreter's lock."""
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        content = os.read(descriptor, size)
        while len(content) < size and (more := os.read(descriptor, size - len(content))):  # a network's file system
            content += more
        return content
    finally:
        os.close(descriptor)


def size_of_file(file: str, bad_files: BadFiles) -> tuple[int, int] | None:
    """Return height and width of an image from its header; record the file and return None if it can't be read."""
    try:
        with Image.open(file) as image:
            return image.height, image.width
    except Exception:  # the pixels decide
        decoded = decode_file(file, bad_files)
        return None if decoded is None else (decoded.shape[0], decoded.shape[1])


def decode_file(file: str, bad_files: BadFiles) -> np.ndarray | None:
    """Return the image, uint8 RGB (H, W, 3); record the file and return None if it can't be read or decoded."""
    return decode_content(lambda: file, lambda: read_file(file), bad_files)


def decode_content(name: Callable[[], str], read: Callable[[], bytes], bad_files: BadFiles) -> np.ndarray | None:
    """Return the image whose content ``read`` returns; record its name and return None where that fails."""
    try:
        return decode(read())
    except ChangedData as error:
        bad_files.mismatch = str(error)
        return None
    except Exception as error:
        # The consumer decides whether the run ends.
        bad_files.record(name(), error)
        return None
