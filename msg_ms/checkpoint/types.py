"""Types of checkpoint contents, and the errors that reading them raises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from mindspore.common.np_dtype import bfloat16

from ..errors import UserError

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
