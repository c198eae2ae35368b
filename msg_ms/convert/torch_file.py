"""Read a PyTorch checkpoint without PyTorch and without running anything from the file.

Both of PyTorch's formats are read: the zip archive (1.6 and later) and the older sequence of pickles. A pickle
may name any function of any installed module; here the names that rebuild tensors are the only ones that mean
something, and every other name becomes an inert :class:`Placeholder`.
"""

from __future__ import annotations

import collections
import io
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import UserError

# Magic number 0x1950A86A20F9469CFC6C and protocol 1001, each as its own pickle.
_LEGACY_HEAD = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."

# Storage class of torch -> NumPy type of its elements; bfloat16 is read as its bits and widened.
STORAGE_TYPES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype("<u2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
BFLOAT16 = "BFloat16Storage"
_DDP_PREFIX = "module."


class TorchFileError(UserError):
    """The file is broken, cut short, or no PyTorch checkpoint at all."""


@dataclass(frozen=True)
class TorchFile:
    """What a checkpoint holds.

    ``content`` is the saved object with every tensor as a NumPy array (bfloat16 widened to float32);
    ``ignored`` are the dotted names in it that were neither imported nor called.
    """

    content: Any
    ignored: tuple[str, ...]


def read_torch_file(path: str | Path) -> TorchFile:
    """Read the checkpoint at ``path``; raises :class:`TorchFileError` with one line on whatever is wrong."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            return _read_zip(file) if zipfile.is_zipfile(file) else _read_legacy(file, path.stat().st_size)
    except TorchFileError as error:
        raise TorchFileError(f"{path}: {error}") from None
    except OSError as error:
        raise TorchFileError(f"can't read {path}: {error.strerror or error}") from None
    except MemoryError:
        raise TorchFileError(f"{path}: asks for more memory than there is; the file is broken") from None
    except Exception as error:
        # A hostile or broken pickle can fail in any way; nothing of it has run, and no detail would help.
        raise TorchFileError(f"{path}: broken or no PyTorch checkpoint ({type(error).__name__}: {error})") from None


class Placeholder:
    """Stands for any object whose class is unknown here: takes whatever unpickling does to it, does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Placeholder:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def _ignore(self, *args: Any) -> None:
        pass

    __setstate__ = __setitem__ = append = extend = add = _ignore


class _Sealed:
    """A pickle can set attributes on whatever it holds; not on these."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise TorchFileError("tries to alter an object that it must not")


class _StorageType(_Sealed):
    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name


class _Storage(_Sealed):
    """A storage named by the pickle; its elements are read afterwards."""

    __slots__ = ("key", "numel", "type_name")

    def __init__(self, type_name: str, key: str, numel: int):
        self.type_name, self.key, self.numel = type_name, key, numel


class _Tensor(_Sealed):
    """A tensor named by the pickle: a strided view of a storage."""

    __slots__ = ("offset", "shape", "storage", "strides")

    def __init__(self, storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]):
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40


class _RebuildTensor(_Sealed):
    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
        sizes = (offset, *shape, *strides)
        if not isinstance(storage, _Storage) or len(shape) != len(strides) or not all(map(_is_count, sizes)):
            raise TorchFileError("a tensor's storage, shape or strides make no sense")
        return _Tensor(storage, offset, tuple(shape), tuple(strides))


class _RebuildParameter(_Sealed):
    __slots__ = ()

    def __call__(self, data: Any, *_: Any) -> Any:
        return data


# Everything in a pickle that means something here. Called with arguments from the file, so each must be harmless.
_KNOWN = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
    **{("torch", name): _StorageType(name) for name in STORAGE_TYPES},
}


# The unpickler written in Python: the one in C sets aside memory for whatever memo index the file names.
class _Unpickler(pickle._Unpickler):
    def __init__(self, file: BinaryIO, ignored: set[str], storages: dict[str, _Storage]):
        super().__init__(file)
        self.ignored, self.storages = ignored, storages

    def find_class(self, module: str, name: str) -> Any:
        known = _KNOWN.get((module, name))
        if known is not None:
            return known
        self.ignored.add(f"{module}.{name}")
        return Placeholder

    def persistent_load(self, pid: Any) -> Any:
        # ('storage', type, key, location, numel[, view metadata of the legacy format])
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
            raise TorchFileError("names an object that is no tensor storage")
        kind, storage_key, numel = pid[1], pid[2], pid[4]
        if not isinstance(kind, _StorageType):
            raise TorchFileError(f"holds tensors of a type other than {', '.join(STORAGE_TYPES)}")
        if not isinstance(storage_key, str) or not _is_count(numel):
            raise TorchFileError("a tensor storage has no proper name or size")
        if len(pid) == 6 and pid[5] is not None:
            raise TorchFileError("holds storage views of a PyTorch before 0.4; save it again with a newer one")
        return self.storages.setdefault(storage_key, _Storage(kind.name, storage_key, numel))


def _read_zip(file: BinaryIO) -> TorchFile:
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        raise TorchFileError(f"broken zip archive ({error})") from None
    names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(names) != 1:
        raise TorchFileError("a zip archive, but no PyTorch checkpoint (it holds no data.pkl)")
    root = names[0].removesuffix("data.pkl")
    if root + "byteorder" in archive.namelist() and _member(archive, root + "byteorder") != b"little":
        raise TorchFileError("written on a big-endian machine, which is not supported")
    ignored: set[str] = set()
    storages: dict[str, _Storage] = {}
    content = _Unpickler(io.BytesIO(_member(archive, names[0])), ignored, storages).load()

    def load(storage: _Storage) -> np.ndarray:
        data = _member(archive, f"{root}data/{storage.key}")
        dtype = STORAGE_TYPES[storage.type_name]
        if len(data) != storage.numel * dtype.itemsize:
            raise TorchFileError(
                f"tensor storage {storage.key} holds {len(data)} bytes, expected {storage.numel * dtype.itemsize}"
            )
        return np.frombuffer(data, dtype)

    arrays = {name: load(storage) for name, storage in storages.items()}
    return TorchFile(_materialise(content, arrays), tuple(sorted(ignored)))


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of a member; zipfile compares their checksum while reading."""
    try:
        info = archive.getinfo(name)
        if info.compress_type != zipfile.ZIP_STORED:
            raise TorchFileError(f"{name} is compressed; PyTorch stores its members as they are")
        return archive.read(info)
    except KeyError:
        raise TorchFileError(f"cut short or broken: {name} is missing") from None
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise TorchFileError(f"broken zip archive ({error})") from None


def _read_legacy(file: BinaryIO, size: int) -> TorchFile:
    file.seek(0)
    ignored: set[str] = set()
    storages: dict[str, _Storage] = {}

    def load() -> Any:
        return _Unpickler(file, ignored, storages).load()

    if file.read(len(_LEGACY_HEAD)) != _LEGACY_HEAD:
        raise TorchFileError("no PyTorch checkpoint, or one cut short")
    system = load()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise TorchFileError("written on a big-endian machine, which is not supported")
    content, order = load(), load()
    if not isinstance(order, list) or sorted(map(str, order)) != sorted(storages):
        raise TorchFileError("cut short or broken: its list of tensor storages doesn't match its tensors")
    arrays = {}
    for storage_key in order:
        storage = storages[storage_key]
        dtype = STORAGE_TYPES[storage.type_name]
        header = file.read(8)
        if len(header) < 8 or int.from_bytes(header, "little", signed=True) != storage.numel:
            raise TorchFileError(f"cut short or broken at tensor storage {storage_key}")
        if storage.numel * dtype.itemsize > size:
            raise TorchFileError(f"tensor storage {storage_key} is larger than the file")
        data = file.read(storage.numel * dtype.itemsize)
        if len(data) != storage.numel * dtype.itemsize:
            raise TorchFileError(f"cut short in tensor storage {storage_key}")
        arrays[storage_key] = np.frombuffer(data, dtype)
    if file.read(1):
        raise TorchFileError("holds more than its tensors; broken")
    return TorchFile(_materialise(content, arrays), tuple(sorted(ignored)))


def _materialise(content: Any, arrays: dict[str, np.ndarray]) -> Any:
    """``content`` with dictionaries, lists and tuples walked through and tensors replaced by arrays.

    A container that the pickle names several times, or that holds itself, is walked once.
    """
    done: dict[int, Any] = {}

    def walk(node: Any) -> Any:
        if id(node) in done:
            return done[id(node)]
        if isinstance(node, _Tensor):
            done[id(node)] = _tensor_array(node, arrays)
        elif isinstance(node, dict):
            done[id(node)] = new = {}
            new.update({name: walk(value) for name, value in node.items()})
        elif isinstance(node, list):
            done[id(node)] = new = []
            new.extend(walk(value) for value in node)
        elif isinstance(node, tuple):
            done[id(node)] = tuple(walk(value) for value in node)
        else:
            return node
        return done[id(node)]

    return walk(content)


def _tensor_array(tensor: _Tensor, arrays: dict[str, np.ndarray]) -> np.ndarray:
    base = arrays[tensor.storage.key]
    if 0 in tensor.shape:
        return np.empty(tensor.shape, base.dtype)
    steps = zip(tensor.shape, tensor.strides, strict=True)
    last = tensor.offset + sum((n - 1) * step for n, step in steps)
    if last >= base.size or np.prod(tensor.shape, dtype=object) > base.size:
        raise TorchFileError("a tensor reaches beyond its storage")
    strides = [step * base.itemsize for step in tensor.strides]
    view = np.lib.stride_tricks.as_strided(base[tensor.offset :], tensor.shape, strides, writeable=False)
    if tensor.storage.type_name == BFLOAT16:
        return (view.astype(np.uint32) << 16).view(np.float32)
    return view


def model_state(content: Any) -> dict[str, np.ndarray]:
    """The weights in a checkpoint's content: found under ``model`` or ``state_dict``, without ``module.`` prefix."""
    for _ in range(3):
        wrapped = next(
            (content[k] for k in ("model", "state_dict") if isinstance(content, dict) and k in content), None
        )
        if not isinstance(wrapped, dict):
            break
        content = wrapped
    if not isinstance(content, dict) or not content:
        raise TorchFileError("holds no dictionary of weights")
    strangers = [
        str(name) for name, value in content.items() if not (isinstance(name, str) and isinstance(value, np.ndarray))
    ]
    if strangers:
        raise TorchFileError(f"holds no plain dictionary of weights: {', '.join(strangers[:5])} is no tensor")
    if all(name.startswith(_DDP_PREFIX) for name in content):
        content = {name.removeprefix(_DDP_PREFIX): value for name, value in content.items()}
    return content
