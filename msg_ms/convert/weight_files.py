"""Read, write and compare weight files of PyTorch and of this package, selected by suffix."""

from __future__ import annotations

from dataclasses import replace
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
from .parts import index_of_part, is_index, read_parts
from .torch_reader.file import read_torch_file
from .torch_writer import write_torch_file
from .training_state import drop_training_state

OUR_SUFFIXES = FORMATS
TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")
# Values of --key for a checkpoint of this package, and the prefix of those weights in the file.
OUR_KEYS = {"model": "", "ema": EMA_PREFIX}
# Every classifier has the first name, every detector the second.
_FIRST_LAYERS = ("patch_embed.proj.weight", "backbone.patch_embed.proj.weight")


def read_torch_weights(path: Path, key: str | None) -> LoadedWeights:
    """Read the weights of a PyTorch checkpoint.

    Any suffix but ``.safetensors`` and ``.index.json`` is read as PyTorch's own format.

    Args:
        path: The file to read, or the index of several files.
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
    state, notes = drop_training_state(file.state)
    file = replace(file, state=state, notes=tuple(notes))
    rules = rules_for(state)
    index = index_of_part(path)
    if index is not None:
        raise UserError(f"{path} is one part of a checkpoint; pass its index, {index.name}")
    if converts(state, "torch", rules):
        return file
    if converts(state, "ours", rules):
        raise UserError(f"{path} has MindSpore parameter names; convert it with --reverse")
    if prefixes := _model_prefixes(state):
        place = default_key(file.content) if key is None else key
        keys = [".".join(part for part in (place, prefix) if part) for prefix in prefixes]
        names = " or ".join(map(repr, prefixes))
        raise UserError(f"{path}: the names of the model's weights start with {names}; pass --key {' or '.join(keys)}")
    return file


def _model_prefixes(state: Arrays) -> list[str]:
    """Return the prefixes of names that convert without them, as PyTorch Lightning's ``model``; at most three."""
    found: list[str] = []
    firsts = [name.removesuffix(f".{first}") for first in _FIRST_LAYERS for name in state if name.endswith(f".{first}")]
    for prefix in islice(dict.fromkeys(firsts), 100):
        inner = {n.removeprefix(f"{prefix}."): value for n, value in state.items() if n.startswith(f"{prefix}.")}
        names, _ = drop_training_state(inner)
        if converts(names, "torch", rules_for(names)) and len(found) < 3:
            found.append(prefix)
    return found


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
    if is_index(path):
        return read_parts(path, key, _read_torch)
    return (read_safetensors if path.suffix == ".safetensors" else read_torch_file)(path, key)


def _is_identical(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    if one is None or other is None or one.dtype != other.dtype or one.shape != other.shape:
        return False
    bits = f"u{one.dtype.itemsize}"
    return np.array_equal(np.ascontiguousarray(one).view(bits), np.ascontiguousarray(other).view(bits))
