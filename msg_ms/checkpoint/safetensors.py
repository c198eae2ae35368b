"""Read and write safetensors files with the safetensors library; limit the header and support bfloat16."""

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
    """Check the header: its size, the types, and that the tensors leave no gaps and do not overlap.

    Raises:
        BrokenCheckpoint: If the file is not a valid safetensors file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
        # The library accepts headers of 100 MB, and reading one needs about ten times its size.
        if header > (256 << 10) + size // 16:
            raise BrokenCheckpoint(f"{path}: damaged, or not a safetensors file (a header of {header:,} bytes)")
        with safe_open(str(path), framework="np", backend="pread"):
            pass
    except SafetensorError as error:
        raise BrokenCheckpoint(f"{path}: damaged, or not a safetensors file ({printable(str(error), 200)})") from None
    except OSError as error:
        raise BrokenCheckpoint(f"can't read {path}: {error.strerror or error}") from None


def read_safetensors(path: Path, key: str | None = None) -> LoadedWeights:
    """Read the weights of a safetensors file.

    Args:
        path: The file to read.
        key: Prefix of the names of the weights, without its final dot; all tensors by default.

    Raises:
        BrokenCheckpoint: If the file is damaged, or its tensors do not have the checksum that MindSpore stored.
        UserError: If ``key`` does not exist.
    """
    check_safetensors(path)
    with safe_open(str(path), framework="np", backend="pread") as file:
        content = {name: (name,) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
        try:
            weights = select_weights(content, key, lambda value: isinstance(value, tuple))
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        tensors = {stored: _read_tensor(file, stored, path) for (stored,) in weights.values()}
        checksum = (file.metadata() or {}).get(_CHECKSUM)
        if checksum is not None and len(tensors) == len(content) and checksum != _checksum(tensors):
            raise BrokenCheckpoint(f"{path}: damaged: its tensors do not match its checksum")
    state = {name: tensors[stored] for name, (stored,) in weights.items()}
    return LoadedWeights(content, state)


def _read_tensor(file: safe_open, name: str, path: Path) -> np.ndarray:
    dtype = file.get_slice(name).get_dtype()
    try:
        value = file.get_tensor(name)
    except (SafetensorError, TypeError, AttributeError, KeyError):
        raise BrokenCheckpoint(f"{path}: {name} has type {dtype}, which is not a type of weights") from None
    if value.size == 0:
        raise BrokenCheckpoint(f"{path}: {name} is empty")
    # The library uses whichever bfloat16 type is registered with NumPy; we use MindSpore's.
    return value.view(np.uint16).view(BFLOAT16) if dtype == "BF16" else value


def write_safetensors(path: Path, state: Mapping[str, np.ndarray], framework: str = "pt") -> None:
    """Write arrays to a safetensors file with a checksum.

    Args:
        path: The file to write.
        state: Arrays by name.
        framework: ``"pt"`` for PyTorch or ``"ms"`` for MindSpore, whose loader checks it.
    """
    arrays = {name: np.ascontiguousarray(value) for name, value in state.items()}
    save_file(arrays, path, metadata={"format": framework, _CHECKSUM: _checksum(arrays)})


def _checksum(state: Mapping[str, np.ndarray]) -> str:
    """Return MindSpore's checksum of names and bytes, in the order of names.

    MindSpore's own function fails on bfloat16.
    """
    checksum = 0
    for name in sorted(state):
        data = np.ascontiguousarray(state[name]).reshape(-1)
        checksum = zlib.crc32(data.view(np.uint8).data, zlib.crc32(name.encode(), checksum))
    return str(checksum)
