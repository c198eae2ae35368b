"""Read the weights of a PyTorch checkpoint without PyTorch; nothing in the file is run.

Both of PyTorch's formats are supported: the zip archive (1.6 and later) and the older sequence of pickles. Only the
tensors of the selected weights are kept. The rest of an archive is still read, to verify its checksums.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import numpy as np

from ...checkpoint.select import select_weights
from ...checkpoint.types import BFLOAT16, Arrays, BrokenCheckpoint, LoadedWeights
from ...errors import UserError, printable, shown
from ...files import as_path
from .pickle import max_operations, unpickle
from .types import STORAGE_CLASSES, PickleScan, Storage, StoredTensor

# Magic number 0x1950A86A20F9469CFC6C and protocol 1001, each as its own pickle.
_LEGACY_HEAD = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."

_DTYPES: tuple[np.dtype, ...] = (
    np.dtype("<f8"),
    np.dtype("<f4"),
    np.dtype("<f2"),
    BFLOAT16,
    *map(np.dtype, ("<i8", "<i4", "<i2", "i1", "u1", "?")),
)
# NumPy type of the elements, by torch's storage class.
STORAGE_DTYPES: dict[str, np.dtype] = dict(zip(STORAGE_CLASSES, _DTYPES, strict=True))
_MAX_PICKLE_SIZE = 64 << 20
_CHUNK_SIZE = 1 << 20


def read_torch_file(path: str | Path, key: str | None = None) -> LoadedWeights:
    """Read the weights of a PyTorch checkpoint.

    Args:
        path: The file to read.
        key: Location of the weights in the checkpoint, see ``msg_ms.checkpoint.select.select_weights``.

    Raises:
        BrokenCheckpoint: If the file is damaged, or is not a PyTorch checkpoint.
        UserError: If the weights are not found. Every message is a single line.
    """
    path = as_path("path", path)
    if key is not None and not isinstance(key, str):
        raise UserError(f"key={shown(key)}: must be text, such as model_ema or a.b")
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
        raise BrokenCheckpoint(f"{path}: damaged: it needs more memory than is available") from None
    except Exception as error:
        # A damaged or hostile file can fail in any way. Nothing in it has run, and no detail would help.
        raise BrokenCheckpoint(
            f"{path}: damaged, or not a PyTorch checkpoint ({type(error).__name__}: {printable(str(error))})"
        ) from None


class _BoundedFile(io.RawIOBase):
    """A file that allocates at most its own size for a read, and at most ``max_read`` bytes."""

    def __init__(self, file: BinaryIO, size: int):
        self.file, self.size, self.max_read = file, size, size

    def read(self, count: int = -1) -> bytes:
        left = max(0, self.size - self.file.tell())
        count = left if count is None or count < 0 else min(count, left)
        if count > self.max_read:
            raise BrokenCheckpoint(f"damaged: a record of {count:,} bytes is larger than a checkpoint needs")
        return self.file.read(count)

    def readline(self, limit: int | None = -1) -> bytes:
        return self.file.readline(min(self.max_read, _CHUNK_SIZE))

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def seekable(self) -> bool:
        return True


def _read_zip(file: _BoundedFile, key: str | None) -> LoadedWeights:
    # zipfile reads the list of members at once, and parsing it needs about ten times its size.
    file.max_read = (256 << 10) + file.size // 32
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        raise BrokenCheckpoint(f"damaged zip archive ({error})") from None
    file.max_read = file.size
    members = {info.filename: info for info in archive.infolist()}
    # Members that share bytes would multiply the amount to read.
    if len(members) != len(archive.infolist()) or sum(info.file_size for info in members.values()) > file.size:
        raise BrokenCheckpoint("damaged zip archive (members overlap or have the same name)")
    names = [name for name in members if name.endswith("/data.pkl")]
    if len(names) != 1:
        raise BrokenCheckpoint(f"a zip archive, but not a PyTorch checkpoint ({len(names)} members named data.pkl)")
    root = names[0].removesuffix("data.pkl")
    if members[names[0]].file_size > _MAX_PICKLE_SIZE:
        raise BrokenCheckpoint(f"{names[0]} is larger than {_MAX_PICKLE_SIZE >> 20} MB")
    if root + "byteorder" in members and _read_member(archive, root + "byteorder") != b"little":
        raise BrokenCheckpoint("written on a big-endian machine, which is not supported")
    scan = PickleScan()
    content = unpickle(io.BytesIO(_read_member(archive, names[0])), scan, max_operations(file.size))
    weights = _select(content, key, file.size)
    selected = _storage_keys(weights)
    storages = {}
    for name, storage in scan.storages.items():
        data = _read_member(archive, f"{root}data/{name}", keep=name in selected)
        if name in selected:
            size = storage.count * STORAGE_DTYPES[storage.kind].itemsize
            if len(data) != size:
                raise BrokenCheckpoint(f"damaged: tensor storage {name} has {len(data)} bytes, expected {size}")
            storages[name] = _storage_array(data, storage)
    return LoadedWeights(content, _tensor_arrays(weights, storages), tuple(sorted(scan.ignored)))


def _read_member(archive: zipfile.ZipFile, name: str, keep: bool = True) -> bytes:
    """Return the bytes of a member, or none without ``keep``; zipfile verifies its checksum in both cases."""
    try:
        info = archive.getinfo(name)
        if info.compress_type != zipfile.ZIP_STORED:
            raise BrokenCheckpoint(f"{name} is compressed, which PyTorch never does")
        if keep:
            return archive.read(info)
        with archive.open(info) as member:
            while member.read(_CHUNK_SIZE):
                pass
        return b""
    except KeyError:
        raise BrokenCheckpoint(f"truncated or damaged: {name} is missing") from None
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        raise BrokenCheckpoint(f"damaged zip archive ({error})") from None


def _read_legacy(file: _BoundedFile, key: str | None) -> LoadedWeights:
    file.seek(0)
    if file.read(len(_LEGACY_HEAD)) != _LEGACY_HEAD:
        raise BrokenCheckpoint("truncated, or not a PyTorch checkpoint")
    scan = PickleScan()
    file.max_read = _MAX_PICKLE_SIZE
    system = unpickle(cast(IO[bytes], file), scan, limit=1000)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise BrokenCheckpoint("written on a big-endian machine, which is not supported")
    content = unpickle(cast(IO[bytes], file), scan, max_operations(file.size))
    order = unpickle(cast(IO[bytes], file), scan, limit=1000 + 4 * len(scan.storages))
    file.max_read = file.size
    is_list_of_names = isinstance(order, list) and all(isinstance(name, str) for name in order)
    if not is_list_of_names or sorted(order) != sorted(scan.storages):
        raise BrokenCheckpoint("truncated or damaged: its list of tensor storages does not match its tensors")
    weights = _select(content, key, file.size)
    selected = _storage_keys(weights)
    storages = {}
    for name in order:
        storage = scan.storages[name]
        size = storage.count * STORAGE_DTYPES[storage.kind].itemsize
        header = file.read(8)
        if len(header) < 8 or int.from_bytes(header, "little", signed=True) != storage.count:
            raise BrokenCheckpoint(f"truncated or damaged at tensor storage {name}")
        if size > file.size - file.tell():
            raise BrokenCheckpoint(f"truncated in tensor storage {name}")
        if name in selected:
            storages[name] = _storage_array(file.read(size), storage)
        else:
            file.seek(size, 1)
    if file.read(1):
        raise BrokenCheckpoint("damaged: there is data after its last tensor")
    return LoadedWeights(content, _tensor_arrays(weights, storages), tuple(sorted(scan.ignored)))


def _select(content: Any, key: str | None, file_size: int) -> dict[str, StoredTensor]:
    """Return the tensors of the weights; together they must not be larger than the file.

    Each tensor becomes an array of its own, so tensors that share bytes could need any amount of memory.
    """
    weights = select_weights(content, key, lambda value: isinstance(value, StoredTensor))
    sizes = (math.prod(t.shape) * STORAGE_DTYPES[t.storage.kind].itemsize for t in weights.values())
    if (total := sum(sizes)) > file_size:
        raise BrokenCheckpoint(
            f"its weights share bytes: they need {min(total, 2**63):,} bytes, more than the file has"
        )
    return weights


def _storage_keys(weights: Mapping[str, StoredTensor]) -> set[str]:
    return {tensor.storage.key for tensor in weights.values()}


def _storage_array(data: bytes, storage: Storage) -> np.ndarray:
    dtype = STORAGE_DTYPES[storage.kind]
    if dtype == BFLOAT16:
        return np.frombuffer(data, np.uint16).view(BFLOAT16)
    return np.frombuffer(data, dtype)


def _tensor_arrays(weights: Mapping[str, StoredTensor], storages: Mapping[str, np.ndarray]) -> Arrays:
    return {name: _tensor_array(tensor, storages[tensor.storage.key]) for name, tensor in weights.items()}


def _tensor_array(tensor: StoredTensor, base: np.ndarray) -> np.ndarray:
    if 0 in tensor.shape:
        raise BrokenCheckpoint("one of its weights is empty")
    steps: Iterable[tuple[int, int]] = zip(tensor.shape, tensor.strides, strict=True)
    last = tensor.offset + sum((n - 1) * step for n, step in steps)
    if last >= base.size or math.prod(tensor.shape) > base.size:
        raise BrokenCheckpoint("damaged: a tensor extends beyond its storage")
    strides = [step * base.itemsize for step in tensor.strides]
    return np.lib.stride_tricks.as_strided(base[tensor.offset :], tensor.shape, strides, writeable=False)
