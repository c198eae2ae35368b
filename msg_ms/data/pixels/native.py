"""Operations on pixels in C++, for any device: they run outside the interpreter's lock, as ctypes releases it.

Without a compiler every function returns None, and its caller uses Pillow, OpenCV or Python, with the same values.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Sequence
from ctypes import c_char_p, c_double, c_int, c_int64, c_void_p
from pathlib import Path

import numpy as np

from ...native.build import optional_library

SOURCES = Path(__file__).parent / "csrc"
# Pillow's weights and transforms are computed without fused multiplications and additions.
FLAGS = ("-ffp-contract=off",)
FILTERS = {"bilinear": 0, "bicubic": 1}
_Three = c_double * 3
_ARGUMENTS = {
    "resize": (c_void_p, c_int64, *(c_int,) * 10, c_void_p),
    "affine_bicubic": (c_void_p, c_int64, c_int, c_int, c_double * 6, c_void_p, c_void_p),
    "blend_images": (c_void_p, c_int, c_int64, c_int, _Three, _Three, _Three, c_void_p),
    "scan_jpeg": (c_void_p, c_int64, c_int64),
    "file_sizes": (c_char_p, c_char_p, c_int64, c_void_p),
}
_NO_LIMIT = 2**62


def resize(
    image: np.ndarray,
    size: tuple[int, int],
    part: tuple[int, int, int, int],
    interpolation: str,
    mirror: bool,
) -> np.ndarray | None:
    """Resize an image as Pillow does, and return a part of the result.

    Args:
        image: uint8 RGB (H, W, 3).
        size: Height and width after resizing.
        part: The part to compute: (top, left, height, width) in pixels.
        interpolation: ``bicubic`` or ``bilinear``.
        mirror: Whether to flip the part horizontally.

    Returns:
        uint8 RGB (height, width, 3); None without a compiler.
    """
    library = _library()
    if library is None:
        return None
    image, output = _with_whole_pixels(image), np.empty((*part[2:], 3), np.uint8)
    height, width = image.shape[:2]
    pointer, stride = image.ctypes.data, image.strides[0]
    failed = library.resize(
        pointer, stride, height, width, *size, *part, FILTERS[interpolation], mirror, output.ctypes.data
    )
    return _checked(failed, output)


def affine_bicubic(image: np.ndarray, matrix: Sequence[float], fill: tuple[int, int, int]) -> np.ndarray | None:
    """Transform an image with bicubic interpolation, as Pillow's ``Image.transform`` does.

    Args:
        image: uint8 RGB (H, W, 3).
        matrix: Six numbers, the map from output to input pixels.
        fill: Colour outside of the image.

    Returns:
        uint8 RGB (H, W, 3); None without a compiler.
    """
    library = _library()
    if library is None:
        return None
    image, output = _with_whole_pixels(image), np.empty(image.shape, np.uint8)
    height, width = image.shape[:2]
    pointer, stride = image.ctypes.data, image.strides[0]
    failed = library.affine_bicubic(
        pointer, stride, height, width, (c_double * 6)(*matrix), bytes(fill), output.ctypes.data
    )
    return _checked(failed, output)


def blend_images(
    images: Sequence[np.ndarray],
    own: Sequence[float],
    theirs: Sequence[float] | None,
    offset: Sequence[float],
    output: np.ndarray,
) -> bool:
    """Write image * own + mirrored image * theirs + offset to ``output``; the batch is mirrored, image 0 to B - 1.

    Args:
        images: B images of one size, uint8 RGB (H, W, 3). Grey ones (H, W, 1) are left to OpenCV, which needs no copy.
        own: A factor for each channel.
        theirs: A factor for each channel of the image at the mirrored position; None leaves it out.
        offset: A number for each channel.
        output: float32 (B, 3, H, W), contiguous.

    Returns:
        Whether there is a compiler, and the images are RGB.
    """
    library = _library()
    if library is None or images[0].shape[2] != 3:
        return False
    images = [np.ascontiguousarray(image) for image in images]
    pointers = (c_void_p * len(images))(*[image.ctypes.data for image in images])
    height, width = images[0].shape[:2]
    factors = (_Three(*own), _Three(*(theirs or own)), _Three(*offset))
    library.blend_images(pointers, len(images), height * width, theirs is not None, *factors, output.ctypes.data)
    return True


def scan_jpeg(encoded: bytes, max_pixels: int | None) -> tuple[bool, bool] | None:
    """Return the result of ``msg_ms.data.pixels.decode.scan_jpeg``; None without a compiler."""
    library = _library()
    if library is None:
        return None
    flags = library.scan_jpeg(encoded, len(encoded), _NO_LIMIT if max_pixels is None else max_pixels)
    return bool(flags & 1), bool(flags & 2)


def file_sizes(folder: str, names: Sequence[str]) -> list[int] | None:
    """Return the sizes of files in a folder, -1 where that fails; None without a compiler."""
    library = _library()
    if library is None:
        return None
    sizes = np.empty(len(names), np.int64)
    joined = os.fsencode("\0".join([*names, ""]))
    library.file_sizes(os.fsencode(folder), joined, len(names), sizes.ctypes.data)
    return sizes.tolist()


def _with_whole_pixels(image: np.ndarray) -> np.ndarray:
    """Return the image, or a copy if the pixels of a row are not next to each other."""
    return image if image.strides[1:] == (3, 1) and image.strides[0] > 0 else np.ascontiguousarray(image)


def _checked(failed: int, output: np.ndarray) -> np.ndarray:
    if failed:
        raise MemoryError(f"no memory for an image of {output.shape[0]} x {output.shape[1]} pixels")
    return output


@functools.cache
def _library() -> ctypes.CDLL | None:
    """Build and load the library once."""
    return optional_library(
        "images", SOURCES, FLAGS, _ARGUMENTS, "images are resized with Pillow, slower than native code"
    )
