"""Write PyTorch checkpoints without PyTorch."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint.types import BFLOAT16
from .torch_reader.file import STORAGE_DTYPES


def write_torch_file(path: str | Path, state: Mapping[str, np.ndarray]) -> None:
    """Write a dictionary of arrays as a zip archive for ``torch.load``, as ``torch.save`` does for tensors.

    Equal arrays produce equal files: the members have no date.

    Args:
        path: The file to write.
        state: Arrays by name.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:

        def add(name: str, data: bytes | memoryview) -> None:
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), data)

        add("data.pkl", _pickle_tensors(state))
        add("byteorder", b"little")
        for index, value in enumerate(state.values()):
            contiguous = np.ascontiguousarray(value)
            if contiguous.dtype != BFLOAT16:
                contiguous = contiguous.astype(contiguous.dtype.newbyteorder("<"), copy=False)
            add(f"data/{index}", contiguous.reshape(-1).view(np.uint8).data)
        add("version", b"3\n")


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
        dtype = value.dtype if value.dtype == BFLOAT16 else value.dtype.newbyteorder("<")
        storage_class = pickle.GLOBAL + f"torch\n{storage_classes[dtype]}\n".encode()
        storage = plain("storage") + storage_class + plain(str(index)) + plain("cpu") + plain(value.size)
        strides = tuple(int(np.prod(value.shape[i + 1 :])) for i in range(value.ndim))
        tensor = pickle.MARK + storage + pickle.TUPLE + pickle.BINPERSID
        tensor += plain(0) + plain(value.shape) + plain(strides) + plain(False) + empty
        parts += [plain(name), call("torch._utils", "_rebuild_tensor_v2", tensor)]
    return b"".join([*parts, pickle.SETITEMS, pickle.STOP])
