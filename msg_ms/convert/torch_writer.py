"""Write PyTorch checkpoints without PyTorch."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint.types import BFLOAT16, check_arrays
from ..errors import UserError, shown
from ..files import as_path
from .torch_reader.file import STORAGE_DTYPES


def write_torch_file(path: str | Path, state: Mapping[str, np.ndarray]) -> None:
    """Write a dictionary of arrays as a zip archive for ``torch.load``, as ``torch.save`` does for tensors.

    Equal arrays produce equal files: the members have no date.

    Args:
        path: The file to write.
        state: Arrays by name.

    Raises:
        UserError: If an array has a type that PyTorch lacks, or the file can't be written.
    """
    path = as_path("path", path)
    check_arrays("state", state)
    for name, value in state.items():
        if _little_endian(value.dtype) not in STORAGE_DTYPES.values():
            raise UserError(f"state[{shown(name)}]: PyTorch has no type {value.dtype}")
    try:
        _write_archive(path, state)
    except OSError as error:
        raise UserError(f"can't write {path}: {error.strerror or error}") from None


def _write_archive(path: Path, state: Mapping[str, np.ndarray]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:

        def add(name: str, data: bytes | memoryview) -> None:
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), data)

        add("data.pkl", _pickle_tensors(state))
        add("byteorder", b"little")
        for index, value in enumerate(state.values()):
            contiguous = np.ascontiguousarray(value)
            contiguous = contiguous.astype(_little_endian(contiguous.dtype), copy=False)
            add(f"data/{index}", contiguous.reshape(-1).view(np.uint8).data)
        add("version", b"3\n")


def _little_endian(dtype: np.dtype) -> np.dtype:
    return dtype if dtype == BFLOAT16 else dtype.newbyteorder("<")


def _pickle_tensors(state: Mapping[str, np.ndarray]) -> bytes:
    """Return the protocol-2 pickle of an OrderedDict of tensors.

    The operations are written one by one, because the pickle module would import torch.
    """
    storage_classes = {dtype: name for name, dtype in STORAGE_DTYPES.items()}

    def plain(value: Any) -> bytes:
        return pickle.dumps(value, 2)[2:-1]  # without the protocol's header and the final stop

    def call(module: str, name: str, arguments: bytes) -> bytes:
        return pickle.GLOBAL + f"{module}\n{name}\n".encode() + pickle.MARK + arguments + pickle.TUPLE + pickle.REDUCE

    empty = call("collections", "OrderedDict", b"")
    parts = [pickle.PROTO + b"\x02", empty, pickle.MARK]
    for index, (name, value) in enumerate(state.items()):
        storage_class = pickle.GLOBAL + f"torch\n{storage_classes[_little_endian(value.dtype)]}\n".encode()
        storage = plain("storage") + storage_class + plain(str(index)) + plain("cpu") + plain(value.size)
        strides = tuple(int(np.prod(value.shape[i + 1 :])) for i in range(value.ndim))
        tensor = pickle.MARK + storage + pickle.TUPLE + pickle.BINPERSID
        tensor += plain(0) + plain(value.shape) + plain(strides) + plain(False) + empty
        parts += [plain(name), call("torch._utils", "_rebuild_tensor_v2", tensor)]
    return b"".join([*parts, pickle.SETITEMS, pickle.STOP])
