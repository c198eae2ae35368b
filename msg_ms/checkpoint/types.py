"""Types of checkpoint contents, and the errors that reading them raises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


def _check_entries(name: str, entries: Any, kinds: str, kind: str, fits: Callable[[Any], bool]) -> None:
    if not isinstance(entries, Mapping):
        raise UserError(f"{name}={shown(entries)}: must be a dictionary of {kinds} by name")
    for key, value in entries.items():
        if not isinstance(key, str) or not fits(value):
            raise UserError(f"{name}[{shown(key)}]={shown(value)}: must be {kind}, by a name that is text")


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.generic)


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple | list) and all(isinstance(n, int) for n in value)


def check_arrays(name: str, arrays: Any) -> None:
    """Raise UserError unless an argument is a dictionary of arrays by name.

    Args:
        name: The argument's name, for messages.
        arrays: Its value.
    """
    _check_entries(name, arrays, "NumPy arrays", "a NumPy array", _is_array)


def check_shapes(name: str, shapes: Any) -> None:
    """Raise UserError unless an argument is a dictionary of shapes, tuples of whole numbers, by name.

    Args:
        name: The argument's name, for messages.
        shapes: Its value.
    """
    _check_entries(name, shapes, "shapes", "a shape", _is_shape)
