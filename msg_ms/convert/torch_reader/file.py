"""Read the weights of a PyTorch checkpoint without PyTorch and without running anything from the file.

Both of PyTorch's formats are read: the zip archive (1.6 and later) and the older sequence of pickles. Only the tensors
of the weights that are asked for are kept; the rest of an archive is read through, as its checksums cover it.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ...checkpoint.select import select_weights
from ...checkpoint.types import BFLOAT16, BrokenCheckpoint, LoadedWeights
from ...errors import UserError, printable
from .pickle import most_operations, unpickle
from .types import STORAGES, PickleScan, Storage, StoredTensor

# Magic number 0x1950A86A20F9469CFC6C and protocol 1001, each as its own pickle.
_LEGACY_HEAD = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."

_TYPES = (
    np.dtype("<f8"),
    np.dtype("<f4"),
    np.dtype("<f2"),
    BFLOAT16,
    *map(np.dtype, ("<i8", "<i4", "<i2", "i1", "u1", "?")),
)
# Storage class of torch -> NumPy type of its elements.
STORAGE_TYPES = dict(zip(STORAGES, _TYPES, strict=True))
_LARGEST_PICKLE = 64 << 20
_CHUNK = 1 << 20


def read_torch_file(path: str | Path, key: str | None = None) -> LoadedWeights:
    """Read the weights at ``path``, those under ``key`` (see :func:`msg_ms.checkpoint.select.select_weights`).

    Raises UserError with one line on whatever is wrong, BrokenCheckpoint where it is the file.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            bounded = _BoundedFile(file, path.stat().st_size)
            read = _read_zip if zipfile.is_zipfile(bounded) else _read_legacy
            return read(bounded, key)
    except UserError as error:
        raise type(error)(f"{path}: {printable(str(error))}") from None
    except OSError as error:
        raise BrokenCheckpoint(f"can't read {path}: {error.strerror or error}") from None
    except MemoryError:
        raise BrokenCheckpoint(f"{path}: asks for more memory than there is; the file is broken") from None
    except Exception as error:
        # A broken or hostile file can fail in any way; nothing of it has run, and no detail would help.
        raise BrokenCheckpoint(
            f"{path}: broken or no PyTorch checkpoint ({type(error).__name__}: {printable(str(error))})"
        ) from None


class _BoundedFile(io.RawIOBase):
    """A file that sets no memory aside for more than it holds, nor for more than ``largest`` bytes at once."""

    def __init__(self, file: BinaryIO, size: int):
        self.file, self.size, self.largest = file, size, size

    def read(self, count: int = -1) -> bytes:
        left = max(0, self.size - self.file.tell())
        count = left if count is None or count < 0 else min(count, left)
        if count > self.largest:
            raise BrokenCheckpoint(f"has a part of {count:,} bytes where a checkpoint's is small")
        return self.file.read(count)

    def readline(self, limit: int = -1) -> bytes:
        return self.file.readline(min(self.largest, _CHUNK))

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def seekable(self) -> bool:
        return True


def _read_zip(file: _BoundedFile, key: str | None) -> LoadedWeights:
    # The list of members is one read, and takes about ten times its size when it is parsed.
    file.largest = (256 << 10) + file.size // 32
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        raise BrokenCheckpoint(f"broken zip archive ({error})") from None
    file.largest = file.size
    members = {info.filename: info for info in archive.infolist()}
    # Members that share bytes would multiply what is read.
    if len(members) != len(archive.infolist()) or sum(info.file_size for info in members.values()) > file.size:
        raise BrokenCheckpoint("broken zip archive (members that overlap or have the same name)")
    names = [name for name in members if name.endswith("/data.pkl")]
    if len(names) != 1:
        raise BrokenCheckpoint("a zip archive, but no PyTorch checkpoint (it holds no data.pkl)")
    root = names[0].removesuffix("data.pkl")
    if members[names[0]].file_size > _LARGEST_PICKLE:
        raise BrokenCheckpoint(f"{names[0]} is larger than {_LARGEST_PICKLE >> 20} MB")
    if root + "byteorder" in members and _member(archive, root + "byteorder") != b"little":
        raise BrokenCheckpoint("written on a big-endian machine, which is not supported")
    findings = PickleScan()
    content = unpickle(io.BytesIO(_member(archive, names[0])), findings, most_operations(file.size))
    weights = _select(content, key, file.size)
    wanted = _storages(weights)
    arrays = {}
    for name, storage in findings.storages.items():
        data = _member(archive, f"{root}data/{name}", keep=name in wanted)
        if name in wanted:
            size = storage.count * STORAGE_TYPES[storage.kind].itemsize
            if len(data) != size:
                raise BrokenCheckpoint(f"tensor storage {name} holds {len(data)} bytes, expected {size}")
            arrays[name] = _as_array(data, storage)
    return LoadedWeights(content, _arrays(weights, arrays), tuple(sorted(findings.ignored)))


def _member(archive: zipfile.ZipFile, name: str, keep: bool = True) -> bytes:
    """The bytes of a member, or none without ``keep``; zipfile compares their checksum while reading."""
    try:
        info = archive.getinfo(name)
        if info.compress_type != zipfile.ZIP_STORED:
            raise BrokenCheckpoint(f"{name} is compressed; PyTorch stores its members as they are")
        if keep:
            return archive.read(info)
        with archive.open(info) as member:
            while member.read(_CHUNK):
                pass
        return b""
    except KeyError:
        raise BrokenCheckpoint(f"cut short or broken: {name} is missing") from None
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        raise BrokenCheckpoint(f"broken zip archive ({error})") from None


def _read_legacy(file: _BoundedFile, key: str | None) -> LoadedWeights:
    file.seek(0)
    if file.read(len(_LEGACY_HEAD)) != _LEGACY_HEAD:
        raise BrokenCheckpoint("no PyTorch checkpoint, or one cut short")
    findings = PickleScan()
    file.largest = _LARGEST_PICKLE
    system = unpickle(file, findings, most=1000)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise BrokenCheckpoint("written on a big-endian machine, which is not supported")
    content = unpickle(file, findings, most_operations(file.size))
    order = unpickle(file, findings, most=1000 + 4 * len(findings.storages))
    file.largest = file.size
    listed = isinstance(order, list) and all(isinstance(name, str) for name in order)
    if not listed or sorted(order) != sorted(findings.storages):
        raise BrokenCheckpoint("cut short or broken: its list of tensor storages doesn't match its tensors")
    weights = _select(content, key, file.size)
    wanted = _storages(weights)
    arrays = {}
    for name in order:
        storage = findings.storages[name]
        size = storage.count * STORAGE_TYPES[storage.kind].itemsize
        header = file.read(8)
        if len(header) < 8 or int.from_bytes(header, "little", signed=True) != storage.count:
            raise BrokenCheckpoint(f"cut short or broken at tensor storage {name}")
        if size > file.size - file.tell():
            raise BrokenCheckpoint(f"cut short in tensor storage {name}")
        if name in wanted:
            arrays[name] = _as_array(file.read(size), storage)
        else:
            file.seek(size, 1)
    if file.read(1):
        raise BrokenCheckpoint("holds more than its tensors; broken")
    return LoadedWeights(content, _arrays(weights, arrays), tuple(sorted(findings.ignored)))


def _select(content: Any, key: str | None, file_size: int) -> dict[str, StoredTensor]:
    """The weights' tensors; together they must not be larger than the file, which each writes out in full."""
    weights = select_weights(content, key, lambda value: isinstance(value, StoredTensor))
    sizes = (math.prod(t.shape) * STORAGE_TYPES[t.storage.kind].itemsize for t in weights.values())
    if (total := sum(sizes)) > file_size:
        raise BrokenCheckpoint(
            f"its weights would take {min(total, 2**63):,} bytes, more than the file has: they share bytes"
        )
    return weights


def _storages(weights: Mapping[str, StoredTensor]) -> set[str]:
    return {tensor.storage.key for tensor in weights.values()}


def _as_array(data: bytes, storage: Storage) -> np.ndarray:
    dtype = STORAGE_TYPES[storage.kind]
    if dtype == BFLOAT16:
        return np.frombuffer(data, np.uint16).view(BFLOAT16)
    return np.frombuffer(data, dtype)


def _arrays(weights: Mapping[str, StoredTensor], storages: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: _tensor_array(tensor, storages[tensor.storage.key]) for name, tensor in weights.items()}


def _tensor_array(tensor: StoredTensor, base: np.ndarray) -> np.ndarray:
    if 0 in tensor.shape:
        raise BrokenCheckpoint("a tensor of its weights is empty")
    steps: Iterable[tuple[int, int]] = zip(tensor.shape, tensor.strides, strict=True)
    last = tensor.offset + sum((n - 1) * step for n, step in steps)
    if last >= base.size or math.prod(tensor.shape) > base.size:
        raise BrokenCheckpoint("a tensor reaches beyond its storage")
    strides = [step * base.itemsize for step in tensor.strides]
    return np.lib.stride_tricks.as_strided(base[tensor.offset :], tensor.shape, strides, writeable=False)
