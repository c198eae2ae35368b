"""Write a PyTorch checkpoint without PyTorch."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint.types import BFLOAT16
from .torch_reader.file import STORAGE_TYPES


def write_torch_file(path: str | Path, state: Mapping[str, np.ndarray]) -> None:
    """Write a dictionary of arrays as ``torch.save`` would write the tensors: a zip archive for ``torch.load``.

    The same arrays give the same bytes: the members carry no time.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:

        def add(name: str, data: bytes | memoryview) -> None:
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), data)

        add("data.pkl", _pickle_of(state))
        add("byteorder", b"little")
        for index, value in enumerate(state.values()):
            plain = np.ascontiguousarray(value)
            if plain.dtype != BFLOAT16:
                plain = plain.astype(plain.dtype.newbyteorder("<"), copy=False)
            add(f"data/{index}", memoryview(plain.reshape(-1).view(np.uint8)))
        add("version", b"3\n")


def _pickle_of(state: Mapping[str, np.ndarray]) -> bytes:
    """The protocol-2 pickle of an OrderedDict of tensors; written by hand, as pickle would import torch for it."""
    types = {dtype: name for name, dtype in STORAGE_TYPES.items()}

    def plain(value: Any) -> bytes:
        return pickle.dumps(value, 2)[2:-1]  # without the protocol's header and the final stop

    def call(module: str, name: str, arguments: bytes) -> bytes:
        return pickle.GLOBAL + f"{module}\n{name}\n".encode() + pickle.MARK + arguments + pickle.TUPLE + pickle.REDUCE

    empty = call("collections", "OrderedDict", b"")
    parts = [pickle.PROTO + b"\x02", empty, pickle.MARK]
    for index, (name, value) in enumerate(state.items()):
        kind = value.dtype if value.dtype == BFLOAT16 else value.dtype.newbyteorder("<")
        storage_class = pickle.GLOBAL + f"torch\n{types[kind]}\n".encode()
        storage = plain("storage") + storage_class + plain(str(index)) + plain("cpu") + plain(value.size)
        strides = tuple(int(np.prod(value.shape[i + 1 :])) for i in range(value.ndim))
        tensor = pickle.MARK + storage + pickle.TUPLE + pickle.BINPERSID
        tensor += plain(0) + plain(value.shape) + plain(strides) + plain(False) + empty
        parts += [plain(name), call("torch._utils", "_rebuild_tensor_v2", tensor)]
    return b"".join([*parts, pickle.SETITEMS, pickle.STOP])
