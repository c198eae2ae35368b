"""Image files as RGB arrays, with Pillow's verdict and Pillow's values."""

from __future__ import annotations

import io
import re
import warnings

import cv2
import numpy as np
from PIL import Image

from . import native

# Pillow warns about images that it reads all the same: damaged EXIF data, palettes with transparency, many pixels.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_OPENCV_FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
_START_OF_SCAN, _END_OF_IMAGE, _PROGRESSIVE = 0xDA, 0xD9, 0xC2
_FRAMES = {0xC0, 0xC1, _PROGRESSIVE}
_QUANTIZATION, _JFIF = 0xDB, 0xE0
_SKIPPED = {0xC4, 0xDD, _START_OF_SCAN}  # Huffman tables, restart interval
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7]")  # neither a stuffed byte nor a restart marker
_OTHER_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xC8, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_TIFF_BITS, _TIFF_PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # tags, and a value of the second


def decode(encoded: bytes) -> np.ndarray:
    """Decode an image file to RGB.

    The values are those of Pillow's ``convert("RGB")``, except for grey images of more than 8 bits: see ``to_rgb``.
    OpenCV decodes intact JPEG files with one or three components: it returns the same values in two thirds of Pillow's
    time. The header is checked first. So unknown files and images of more than twice ``PIL.Image.MAX_IMAGE_PIXELS`` are
    refused before they need memory.

    Args:
        encoded: Content of the file. The EXIF orientation is ignored, as in torchvision.

    Returns:
        uint8 (H, W, 3).

    Raises:
        Exception: One of Pillow's errors, if Pillow can't decode the data; see also ``to_rgb``.
    """
    intact, plain = scan_jpeg(encoded)
    if intact and (plain or _opens_as_jpeg(encoded)):
        pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), _OPENCV_FLAGS)
        if pixels is not None:
            return pixels
    with Image.open(io.BytesIO(encoded)) as image:
        return to_rgb(image)


def _opens_as_jpeg(encoded: bytes) -> bool:
    """Return whether Pillow opens the file as JPEG with one or three components; raise Pillow's error otherwise."""
    with Image.open(io.BytesIO(encoded)) as image:
        return image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB")


def scan_jpeg(encoded: bytes) -> tuple[bool, bool]:
    """Check the markers of a JPEG file.

    OpenCV returns grey pixels for some files that Pillow refuses: libjpeg finds their damage after the last row. The
    damage is an unexpected marker in or after the compressed data, so the markers show it without decoding.

    Args:
        encoded: Content of the file.

    Returns:
        Whether there is a baseline or progressive image up to an end marker, and whether the header is so plain that
        Pillow would open it, too. Both are false for rare variants.
    """
    return native.scan_jpeg(encoded, Image.MAX_IMAGE_PIXELS) or scan_jpeg_in_python(encoded)


def scan_jpeg_in_python(encoded: bytes) -> tuple[bool, bool]:
    """Return the result of ``scan_jpeg`` without a compiler."""
    size, position, frame, scans, plain = len(encoded), 2, 0, 0, True
    if encoded[:2] != b"\xff\xd8":
        return False, False
    while position + 2 <= size and encoded[position] == 0xFF:
        marker = encoded[position + 1]
        if marker == _END_OF_IMAGE:
            # A second scan of a baseline file may fail after OpenCV has returned the rows of the first one.
            return scans == 1 or (scans > 1 and frame == _PROGRESSIVE), plain
        length = int.from_bytes(encoded[position + 2 : position + 4], "big")
        if marker in _OTHER_FRAMES or length < 2 or (marker in _FRAMES and frame):
            return False, False
        if marker in _FRAMES:
            frame = marker
        if not scans:
            plain = plain and _is_plain_segment(marker, encoded[position + 4 : position + 2 + length])
        position += 2 + length
        if marker == _START_OF_SCAN:
            scans += 1
            end = _END_OF_SCAN.search(encoded, position)
            if end is None:
                return False, False
            position = end.start()
    return False, False


def _is_plain_segment(marker: int, content: bytes) -> bool:
    """Return whether Pillow accepts a segment of a header without a look at other data: not EXIF, colour profiles."""
    if marker in _FRAMES:
        height, width = int.from_bytes(content[1:3], "big"), int.from_bytes(content[3:5], "big")
        within_limit = Image.MAX_IMAGE_PIXELS is None or height * width <= Image.MAX_IMAGE_PIXELS
        bits_and_layers = (content[:1], content[5:6], len(content))
        return within_limit and bits_and_layers in ((b"\x08", b"\x01", 9), (b"\x08", b"\x03", 15))
    if marker == _QUANTIZATION:
        return len(content) % 65 == 0 and not any(table >> 4 for table in content[::65])
    return marker in _SKIPPED or (marker == _JFIF and content[:5] == b"JFIF\0" and len(content) >= 14)


def to_rgb(image: Image.Image) -> np.ndarray:
    """Convert an opened image to RGB.

    16-bit grey images keep their upper 8 bits, as Pillow does for 16-bit RGB; Pillow's ``convert`` would clip them to
    white. 32-bit and float images must hold values from 0 to 255, because their range is not known.

    Args:
        image: Any of Pillow's modes.

    Returns:
        uint8 (H, W, 3).

    Raises:
        ValueError: The values of a 32-bit or float image are not 8-bit grey levels.
        Exception: One of Pillow's errors, if the data is damaged.
    """
    tags = getattr(image, "tag_v2", {})
    if image.mode.startswith("I;16"):
        bits = tags.get(_TIFF_BITS, (16,))[0]
        grey = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
        if tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO:
            grey = 255 - grey
    elif image.mode == "I" and image.format == "PPM":  # Pillow scales these to 16 bits
        grey = (np.asarray(image) >> 8).astype(np.uint8)
    elif image.mode in ("I", "F"):
        values = np.asarray(image)
        low, high = values.min(), values.max()
        # A float image within [0, 1] would become black. NaN fails the comparison.
        if not (low >= 0 and high <= 255 and (image.mode == "I" or high > 1 or high == 0)):
            kind = "float" if image.mode == "F" else "32-bit"
            raise ValueError(f"{kind} image with values from {low:g} to {high:g}; save it with 8 or 16 bits")
        grey = values.astype(np.uint8)
    else:
        return np.asarray(image.convert("RGB"))
    return np.repeat(grey[..., None], 3, axis=2)
