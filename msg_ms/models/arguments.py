"""Checks of the arguments of models and of their inputs: kind and range, with the value in the message."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor

from ..errors import UserError, nearest, shown
from ..files import as_path


def whole_number(name: str, value: Any, least: int | None = None, most: int = 2**31 - 1) -> int:
    """Return ``value`` as an int; raise UserError unless it is a whole number from ``least`` to ``most``."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise UserError(f"{name}={shown(value)}: must be a whole number")
    if (least is not None and value < least) or value > most:
        raise UserError(
            f"{name}={shown(value)}: must be "
            + (f"at least {least} and " if least is not None else "")
            + f"at most {most}"
        )
    return int(value)


def whole_numbers(name: str, value: Any, most: int = 2**31 - 1) -> tuple[int, ...]:
    """Return ``value`` as a tuple; raise UserError unless it is a list of whole numbers up to ``most``."""
    if not isinstance(value, list | tuple | range | np.ndarray) or (isinstance(value, np.ndarray) and value.ndim == 0):
        raise UserError(f"{name}={shown(value)}: must be a list of whole numbers")
    return tuple(whole_number(f"{name}[{i}]", entry, most=most) for i, entry in enumerate(value))


def number(name: str, value: Any, least: float | None = None, most: float | None = None) -> float:
    """Return ``value``; raise UserError unless it is a finite number, from ``least`` to ``most`` if they are given."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        raise UserError(f"{name}={shown(value)}: must be a number")
    if not abs(float(value)) < 2.0**127:
        raise UserError(f"{name}={shown(value)}: must be finite")
    if (least is not None and value < least) or (most is not None and value > most):
        raise UserError(f"{name}={shown(value)}: must be from {least} to {most}")
    return value if isinstance(value, int | float) else value.item()


def switch(name: str, value: Any) -> bool:
    """Return ``value`` as a bool; raise UserError unless it is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise UserError(f"{name}={shown(value)}: must be True or False")
    return bool(value)


def file_path(name: str, value: Any) -> Path | None:
    """Return ``value`` as a path, or None if it is empty or None; raise UserError unless it is text or a path."""
    return None if value is None or (isinstance(value, str) and not value) else as_path(name, value)


def known_name(kind: str, value: Any, known: Collection[str]) -> str:
    """Return ``value``; raise UserError unless it is one of the names ``known``."""
    if not isinstance(value, str):
        raise UserError(f"{kind}={shown(value)}: must be a name, one of {', '.join(known)}")
    if value not in known:
        raise UserError(f"no {kind} is called {value!r}{nearest(value, known)}; there are {', '.join(known)}")
    return value


def only_known(owner: str, arguments: Iterable[str], known: Collection[str]) -> None:
    """Raise UserError for the first of ``arguments`` that is not in ``known``."""
    for name in arguments:
        if name not in known:
            raise UserError(f"{owner} has no argument {name!r}{nearest(name, known)}")


def filtered(names: Iterable[str], patterns: Any) -> list[str]:
    """Return the names that match one of the patterns (``*`` and ``?`` as in a shell), all if there is none.

    Args:
        names: The names.
        patterns: A pattern, or a list of them.

    Raises:
        UserError: If a pattern is not text.
    """
    several = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(several, list | tuple | set) or not all(isinstance(pattern, str) for pattern in several):
        raise UserError(f"filter={shown(patterns)}: must be text such as 'msg*', or a list of such")
    several = [pattern for pattern in several if pattern]
    return [name for name in names if not several or any(fnmatchcase(name, pattern) for pattern in several)]


def refuse_pretrained(pretrained: Any, name: str) -> None:
    """Raise UserError if pretrained weights are asked for: none are published."""
    if switch("pretrained", pretrained):
        raise UserError(
            f"pretrained=True: no trained weights of {name} are published; train it, or convert a PyTorch checkpoint "
            "with tools/convert_torch_ckpt.py, and pass the file as checkpoint_path"
        )


def check_noise(noise: Any, blocks: int, images: int) -> None:
    """Raise UserError unless ``noise`` is None or a float32 tensor (blocks, 2, B) for stochastic depth."""
    shape = (blocks, 2, images)
    if noise is None or (isinstance(noise, Tensor) and tuple(noise.shape) == shape and noise.dtype == ms.float32):
        return
    kind = f"{str(noise.dtype).lower()} {tuple(noise.shape)}" if isinstance(noise, Tensor) else _kind(noise)
    raise UserError(f"drop_path_noise must be None or a float32 Tensor of shape {shape}, not {kind}")


def check_rows(name: str, value: Any, rows: int, columns: int) -> None:
    """Raise UserError unless ``value`` is a float32 tensor (rows, columns)."""
    if not isinstance(value, Tensor) or tuple(value.shape) != (rows, columns) or value.dtype != ms.float32:
        kind = f"{str(value.dtype).lower()} {tuple(value.shape)}" if isinstance(value, Tensor) else _kind(value)
        raise UserError(f"{name} must be a float32 Tensor ({rows}, {columns}), not {kind}")


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return "a NumPy array; wrap it in mindspore.Tensor"
    return f"{type(value).__name__} {shown(value)}"
