"""Checkpoint files of both sides by their names: read, write, compare."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..checkpoint import EMA_PREFIX, read_checkpoint, select_prefix, write_checkpoint
from ..checkpoint.files import FORMATS
from ..checkpoint.safetensors import read_safetensors, write_safetensors
from ..errors import UserError, nearest, shorten
from .names import State, converts
from .torch_reader.file import LoadedWeights, read_torch_file
from .torch_writer import write_torch_file

OUR_SUFFIXES = FORMATS
TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")
# What --key takes for a checkpoint of ours, and what the names of those weights begin with there.
OUR_KEYS = {"model": "", "ema": EMA_PREFIX}


def read_torch_weights(path: Path, key: str | None) -> LoadedWeights:
    """The weights of a PyTorch checkpoint, whatever its name where it is no ``.safetensors``."""
    file = (read_safetensors if path.suffix == ".safetensors" else read_torch_file)(path, key)
    if not converts(file.state, "torch") and converts(file.state, "ours"):
        raise UserError(f"{path} has this package's names; --reverse converts it to PyTorch's")
    return file


def read_our_weights(path: Path, key: str | None) -> State:
    """The weights of a checkpoint of ours, or with ``key`` "ema" their average."""
    arrays, _ = read_checkpoint(path)
    there = [name for name, prefix in OUR_KEYS.items() if select_prefix(arrays, prefix)]
    if key is not None and key not in there:
        raise UserError(f"{path}: --key {key}: weights are under {shorten(there) or 'none'}{nearest(key, there)}")
    return select_prefix(arrays, OUR_KEYS[key or "model"])


def write_weights(path: Path, state: State, torch: bool) -> None:
    """Write weights under PyTorch's names or ours, in the format that ``path`` names."""
    if not torch:
        write_checkpoint(path, state)
    elif path.suffix == ".safetensors":
        write_safetensors(path, state)
    else:
        write_torch_file(path, state)


def compare_with_file(path: Path, state: State, torch: bool) -> None:
    """Raise UserError where the file at ``path`` does not hold exactly ``state``: names, types, shapes, bits."""
    if torch:
        found = (read_safetensors if path.suffix == ".safetensors" else read_torch_file)(path).state
    else:
        found = read_checkpoint(path)[0]
    differing = [name for name in {**state, **found} if not _same(found.get(name), state.get(name))]
    if differing:
        raise UserError(f"what was written differs from what was to be written: {shorten(differing)}")


def _same(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    if one is None or other is None or one.dtype != other.dtype or one.shape != other.shape:
        return False
    bits = f"u{one.dtype.itemsize}"
    return np.array_equal(np.ascontiguousarray(one).view(bits), np.ascontiguousarray(other).view(bits))
