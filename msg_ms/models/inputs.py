"""Inputs of models that Python users call: arrays and lists become Tensors, other things are refused."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from ..errors import UserError, printable, shown

FLOATS = (ms.float32, ms.float16, ms.bfloat16)


class AcceptsArrays(nn.Cell):
    """A Cell whose first input, normalised images, may be an array or a list too.

    Inside a graph, and for Tensors of the right kind, nothing changes.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the outputs of ``construct``.

        Raises:
            UserError: If the first input is not images (B, C, height, width) of floating-point numbers.
        """
        if args:
            args = (as_images(args[0]), *args[1:])
        elif "x" in kwargs:
            kwargs["x"] = as_images(kwargs["x"])
        return super().__call__(*args, **kwargs)


def as_images(images: Any) -> Tensor:
    """Return normalised images as a Tensor.

    Args:
        images: A Tensor, an array or nested lists (B, C, height, width) of floating-point numbers.

    Raises:
        UserError: If they have other dimensions or another type.
    """
    expected = "expected normalised images (B, C, height, width), float32"
    if not isinstance(images, Tensor):
        array = _as_array(images, expected)
        if array.dtype.kind in "uib":
            raise UserError(
                f"the images are an array of {array.dtype}: {expected}; msg_ms.load(...).predict prepares images"
            )
        images = Tensor(np.ascontiguousarray(array, np.float32)) if array.size else array
    elif images.dtype not in FLOATS:
        raise UserError(f"the images are a Tensor of {images.dtype}: {expected}")
    if images.ndim != 4 or 0 in images.shape:
        raise UserError(f"the images have shape {tuple(images.shape)}: {expected}")
    return images


def as_numbers(name: str, values: Any, rows: int, columns: int) -> np.ndarray:
    """Return a table of finite numbers above 0 as float32.

    Args:
        name: The argument's name, for messages.
        values: An array, a Tensor or nested lists (rows, columns).
        rows: Expected number of rows, one for each image.
        columns: Expected number of columns.

    Raises:
        UserError: If the shape or a number differs.
    """
    expected = f"expected {columns} numbers above 0 for each of the {rows} images"
    array = _as_array(values.asnumpy() if isinstance(values, Tensor) else values, f"{name}: {expected}")
    if array.shape != (rows, columns):
        raise UserError(f"{name} has shape {array.shape}: {expected}")
    numbers = array.astype(np.float32)
    if not (np.isfinite(numbers).all() and (numbers > 0).all()):
        raise UserError(f"{name}={printable(str(array.tolist()), 100)}: {expected}")
    return numbers


def _as_array(values: Any, expected: str) -> np.ndarray:
    """Return numbers as an array; raise UserError for anything else."""
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError):  # rows of different lengths, or an object that refuses
        raise UserError(f"{type(values).__name__} with rows of different lengths: {expected}") from None
    if array.dtype.kind not in "fuib":
        raise UserError(f"{shown(values)} is no array of numbers: {expected}")
    return array
