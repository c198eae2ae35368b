"""Types of checkpoint contents, and the errors that reading them raises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from mindspore.common.np_dtype import bfloat16

from ..errors import UserError, shown

BFLOAT16 = np.dtype(bfloat16)
Arrays = dict[str, np.ndarray]
Metadata = dict[str, int | float | str]


class BrokenCheckpoint(UserError):
    """The file is damaged, truncated, or not a checkpoint."""


class ConversionError(UserError):
    """Names or shapes do not match; the message lists all of them at once."""


@dataclass(frozen=True)
class LoadedWeights:
    """Weights read from a file.

    Attributes:
        content: The saved object, with a placeholder for each tensor.
        state: The weights by name, in the types that the file stores.
        ignored: Dotted names in a pickle that were neither imported nor called.
        notes: Lines for the user on entries that were left out.
    """

    content: Any
    state: Arrays
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def check_arrays(name: str, arrays: Any) -> None:
    """Raise UserError unless an argument is a dictionary of arrays by name.

    Args:
        name: The argument's name, for messages.
        arrays: Its value.
    """
    if not isinstance(arrays, Mapping):
        raise UserError(f"{name}={shown(arrays)}: must be a dictionary of NumPy arrays by name")
    for key, value in arrays.items():
        if not isinstance(key, str) or not isinstance(value, np.ndarray | np.generic):
            raise UserError(f"{name}[{shown(key)}]={shown(value)}: must be a NumPy array, by a name that is text")


def check_shapes(name: str, shapes: Any) -> None:
    """Raise UserError unless an argument is a dictionary of shapes, tuples of whole numbers, by name.

    Args:
        name: The argument's name, for messages.
        shapes: Its value.
    """
    if not isinstance(shapes, Mapping):
        raise UserError(f"{name}={shown(shapes)}: must be a dictionary of shapes by name")
    for key, shape in shapes.items():
        if (
            not isinstance(key, str)
            or not isinstance(shape, tuple | list)
            or not all(isinstance(n, int) for n in shape)
        ):
            raise UserError(f"{name}[{shown(key)}]={shown(shape)}: must be a shape, by a name that is text")
