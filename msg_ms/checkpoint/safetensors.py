"""Safetensors files, by the safetensors library; what is added here is a bound on the header, and bfloat16."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..errors import UserError, printable
from .select import select_weights
from .types import BFLOAT16, BrokenCheckpoint, LoadedWeights

_CHECKSUM = "crc_num"


def check_safetensors(path: Path) -> None:
    """Raise BrokenCheckpoint where the file is none: header, types, and offsets without gaps or overlaps."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
        # The library takes headers of 100 MB, and about ten times a header's size to read it.
        if header > (256 << 10) + size // 16:
            raise BrokenCheckpoint(f"{path}: no safetensors file, or a broken one (a header of {header:,} bytes)")
        with safe_open(str(path), framework="np", backend="pread"):
            pass
    except SafetensorError as error:
        raise BrokenCheckpoint(f"{path}: no safetensors file, or a broken one ({printable(str(error), 200)})") from None
    except OSError as error:
        raise BrokenCheckpoint(f"can't read {path}: {error.strerror or error}") from None


def read_safetensors(path: Path, key: str | None = None) -> LoadedWeights:
    """The weights of a safetensors file; ``key`` is what their names begin with.

    Raises UserError, also where the file carries MindSpore's checksum and its tensors have another.
    """
    check_safetensors(path)
    with safe_open(str(path), framework="np", backend="pread") as file:
        content = {name: (name,) for name in file.keys()}  # noqa: SIM118 (no dictionary)
        try:
            weights = select_weights(content, key, lambda value: isinstance(value, tuple))
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        tensors = {stored: _tensor(file, stored, path) for (stored,) in weights.values()}
        checksum = (file.metadata() or {}).get(_CHECKSUM)
        if checksum is not None and len(tensors) == len(content) and checksum != _checksum(tensors):
            raise BrokenCheckpoint(f"{path}: broken: its tensors don't have the checksum that it carries")
    state = {name: tensors[stored] for name, (stored,) in weights.items()}
    return LoadedWeights(content, state)


def _tensor(file: safe_open, name: str, path: Path) -> np.ndarray:
    kind = file.get_slice(name).get_dtype()
    try:
        value = file.get_tensor(name)
    except (SafetensorError, TypeError, AttributeError, KeyError):
        raise BrokenCheckpoint(f"{path}: {name} is of the type {kind}, which can't be weights") from None
    if value.size == 0:
        raise BrokenCheckpoint(f"{path}: {name} is empty")
    # The library's bfloat16 is whichever package's NumPy knows under that name.
    return value.view(np.uint16).view(BFLOAT16) if kind == "BF16" else value


def write_safetensors(path: Path, state: Mapping[str, np.ndarray], framework: str = "pt") -> None:
    """Write arrays with a checksum; ``framework`` is "pt" for PyTorch or "ms" for MindSpore, whose loader asks."""
    arrays = {name: np.ascontiguousarray(value) for name, value in state.items()}
    save_file(arrays, path, metadata={"format": framework, _CHECKSUM: _checksum(arrays)})


def _checksum(state: Mapping[str, np.ndarray]) -> str:
    """MindSpore's, of names and bytes in the order of the names; its own code can't compute it for bfloat16."""
    checksum = 0
    for name in sorted(state):
        data = np.ascontiguousarray(state[name]).reshape(-1)
        checksum = zlib.crc32(data.view(np.uint8), zlib.crc32(name.encode(), checksum))
    return str(checksum)
