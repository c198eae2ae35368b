"""Write a PyTorch checkpoint without PyTorch."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .torch_file import BFLOAT16, STORAGE_TYPES


def write_torch_file(path: str | Path, state: Mapping[str, np.ndarray]) -> None:
    """Write a dictionary of arrays as ``torch.save`` would write the tensors: a zip archive for ``torch.load``."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", _pickle_of(state))
        archive.writestr("archive/byteorder", "little")
        for index, value in enumerate(state.values()):
            data = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
            archive.writestr(f"archive/data/{index}", data.tobytes())
        archive.writestr("archive/version", "3\n")


def _pickle_of(state: Mapping[str, np.ndarray]) -> bytes:
    """The protocol-2 pickle of an OrderedDict of tensors; written by hand, as pickle would import torch for it."""
    types = {dtype: name for name, dtype in STORAGE_TYPES.items() if name != BFLOAT16}

    def plain(value: Any) -> bytes:
        return pickle.dumps(value, 2)[2:-1]  # without the protocol's header and the final stop

    def call(module: str, name: str, arguments: bytes) -> bytes:
        return pickle.GLOBAL + f"{module}\n{name}\n".encode() + pickle.MARK + arguments + pickle.TUPLE + pickle.REDUCE

    empty = call("collections", "OrderedDict", b"")
    parts = [pickle.PROTO + b"\x02", empty, pickle.MARK]
    for index, (name, value) in enumerate(state.items()):
        kind = pickle.GLOBAL + f"torch\n{types[value.dtype.newbyteorder('<')]}\n".encode()
        storage = plain("storage") + kind + plain(str(index)) + plain("cpu") + plain(value.size)
        strides = tuple(int(np.prod(value.shape[i + 1 :])) for i in range(value.ndim))
        tensor = pickle.MARK + storage + pickle.TUPLE + pickle.BINPERSID
        tensor += plain(0) + plain(value.shape) + plain(strides) + plain(False) + empty
        parts += [plain(name), call("torch._utils", "_rebuild_tensor_v2", tensor)]
    return b"".join([*parts, pickle.SETITEMS, pickle.STOP])
