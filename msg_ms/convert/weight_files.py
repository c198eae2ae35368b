"""Read, write and compare weight files of PyTorch and of this package, selected by suffix."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np

from ..checkpoint.files import EMA_PREFIX, FORMATS, read_checkpoint, select_prefix, write_checkpoint
from ..checkpoint.safetensors import read_safetensors, write_safetensors
from ..checkpoint.select import default_key
from ..checkpoint.types import Arrays, BrokenCheckpoint, LoadedWeights
from ..errors import UserError, nearest, shorten
from .detector_shapes import rules_for
from .names import converts
from .torch_reader.file import read_torch_file
from .torch_writer import write_torch_file

OUR_SUFFIXES = FORMATS
TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")
# Values of --key for a checkpoint of this package, and the prefix of those weights in the file.
OUR_KEYS = {"model": "", "ema": EMA_PREFIX}


def read_torch_weights(path: Path, key: str | None) -> LoadedWeights:
    """Read the weights of a PyTorch checkpoint; any suffix but ``.safetensors`` is read as PyTorch's own format.

    Args:
        path: The file to read.
        key: Location of the weights, see ``msg_ms.checkpoint.select.select_weights``.

    Raises:
        UserError: If the file is unreadable or has this package's parameter names.
    """
    try:
        file = _read_torch(path, key)
    except BrokenCheckpoint as error:
        # PyTorch Lightning's files have this suffix too.
        hint = "; pass --reverse for a MindSpore checkpoint" if path.suffix == ".ckpt" else ""
        raise BrokenCheckpoint(f"{error}{hint}") from None
    rules = rules_for(file.state)
    if not converts(file.state, "torch", rules) and converts(file.state, "ours", rules):
        raise UserError(f"{path} has MindSpore parameter names; convert it with --reverse")
    if not converts(file.state, "torch") and (prefix := _model_prefix(file.state)):
        location = ".".join(part for part in (default_key(file.content) if key is None else key, prefix) if part)
        raise UserError(f"{path}: the names of the model's weights start with {prefix!r}; pass --key {location}")
    return file


def _model_prefix(state: Arrays) -> str:
    """Return the prefix of the names that convert without it, as PyTorch Lightning's ``model``; empty if none does."""
    parts = [name.split(".") for name in state]
    prefixes = dict.fromkeys(".".join(name[:count]) for count in (1, 2, 3) for name in parts if len(name) > count)
    for prefix in islice(prefixes, 100):
        names = [name.removeprefix(f"{prefix}.") for name in state if name.startswith(f"{prefix}.")]
        if "patch_embed.proj.weight" in names and converts(dict.fromkeys(names), "torch"):
            return prefix
    return ""


def read_our_weights(path: Path, key: str | None) -> Arrays:
    """Read the weights of a checkpoint of this package.

    Args:
        path: The file to read.
        key: ``"model"`` (default), or ``"ema"`` for the averaged weights.

    Raises:
        UserError: If the file is unreadable or has no such weights.
    """
    arrays, _ = read_checkpoint(path)
    known = [name for name, prefix in OUR_KEYS.items() if select_prefix(arrays, prefix)]
    if key is not None and key not in known:
        raise UserError(f"{path}: --key {key}: weights are under {shorten(known) or 'none'}{nearest(key, known)}")
    return select_prefix(arrays, OUR_KEYS[key or "model"])


def write_weights(path: Path, state: Arrays, torch: bool) -> None:
    """Write weights in the format of the suffix.

    Args:
        path: The file to write.
        state: Arrays by name.
        torch: Whether to write a file for PyTorch, not for MindSpore.
    """
    if not torch:
        write_checkpoint(path, state)
    elif path.suffix == ".safetensors":
        write_safetensors(path, state)
    else:
        write_torch_file(path, state)


def compare_with_file(path: Path, state: Arrays, torch: bool) -> None:
    """Read a written file again, and compare names, types, shapes and every bit.

    Args:
        path: The file to read.
        state: The arrays that it should contain, by name.
        torch: Whether it is a file for PyTorch.

    Raises:
        UserError: If anything differs; the message lists the names.
    """
    written = _read_torch(path, None).state if torch else read_checkpoint(path)[0]
    differing = [name for name in {**state, **written} if not _is_identical(written.get(name), state.get(name))]
    if differing:
        raise UserError(f"the written file differs from the converted weights: {shorten(differing)}")


def _read_torch(path: Path, key: str | None) -> LoadedWeights:
    return (read_safetensors if path.suffix == ".safetensors" else read_torch_file)(path, key)


def _is_identical(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    if one is None or other is None or one.dtype != other.dtype or one.shape != other.shape:
        return False
    bits = f"u{one.dtype.itemsize}"
    return np.array_equal(np.ascontiguousarray(one).view(bits), np.ascontiguousarray(other).view(bits))
