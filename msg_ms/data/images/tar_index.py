"""The index of a folder of tar files: one file with the names, offsets and sizes of their images.

It is a safetensors file, whose arrays are mapped into memory. So a million images are listed in a fraction of a second.
"""

from __future__ import annotations

import json
import mmap
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ...errors import UserError
from ...files import atomic_write, head_of_file
from .tar_files import COMMAND, TarFile

INDEX = "index.safetensors"  # in the folder of the tar files
_FORMAT = "msg_ms tar index 1"
_TYPES: dict[str, np.dtype] = {"U8": np.dtype(np.uint8), "I32": np.dtype(np.int32), "I64": np.dtype(np.int64)}
_COLUMNS = ("names", "ends", "counts", "numbers", "offsets", "sizes")


@dataclass(frozen=True)
class TarIndex:
    """The images of a folder of tar files, class by class, sorted as in class folders.

    Attributes:
        tars: The tar files.
        folders: Names of the class folders as they are stored, sorted by composed name.
        ignored: Lines on ignored members.
        labels: Whether ``folders`` are labels, 0 to the largest one, and not names of classes.
        names, ends: The images' names, see ``FileList``.
        counts: int64 (classes,): images of each class.
        numbers, offsets, sizes: See ``TarFileList``.
    """

    tars: tuple[TarFile, ...]
    folders: tuple[str, ...]
    ignored: tuple[str, ...]
    labels: bool
    names: np.ndarray
    ends: np.ndarray
    counts: np.ndarray
    numbers: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray

    def write(self, root: Path) -> None:
        """Write the index; an older index is replaced.

        Raises:
            UserError: There is a file of that name that is not an index, or the file can't be written.
        """
        path = root / INDEX
        check_replaceable(path)
        content = json.dumps([self.tars, self.folders, self.ignored, *([True] if self.labels else [])])
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in _COLUMNS}
        with atomic_write(path) as temporary:
            # One entry, as the library writes several in any order.
            save_file(arrays, temporary, {_FORMAT: f"{_checksum(content, arrays)} {content}"})

    @classmethod
    def read(cls, root: Path) -> TarIndex:
        """Read the index; its arrays stay in the file.

        Raises:
            UserError: The file can't be read, is damaged, or is not an index.
        """
        path = root / INDEX
        damaged = f"{path} is damaged, or not an index of tar files; remove it and run {COMMAND} {root}"
        try:
            path.open("rb").close()  # safetensors reports a file without permission as missing
            with safe_open(str(path), framework="np"):  # checks the header
                pass
            metadata, arrays = _map(path)
            checksum, _, content = metadata[_FORMAT].partition(" ")
            sound = checksum == str(_checksum(content, arrays))
            tars, folders, ignored, *labels = json.loads(content)
        except OSError as error:
            raise UserError(f"can't read {path}: {error.strerror or error}") from None
        except (SafetensorError, ValueError, KeyError, TypeError):
            raise UserError(damaged) from None
        if not sound:
            raise UserError(damaged)
        return cls(tuple(TarFile(*row) for row in tars), tuple(folders), tuple(ignored), bool(labels), **arrays)


def check_replaceable(path: Path) -> None:
    """Raise UserError if a file exists and is not an index."""
    head = head_of_file(path, 1 << 20)
    if head is not None and f'{{"{_FORMAT}":'.encode() not in head:
        raise UserError(f"{path} exists and is not an index of tar files; remove or rename it")


def _map(path: Path) -> tuple[Mapping[str, str], dict[str, np.ndarray]]:
    """Return the metadata and the arrays of a safetensors file without reading them."""
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    begin = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:begin])
    arrays = {}
    for name in _COLUMNS:
        entry = header[name]
        (count,), offset = entry["shape"], begin + entry["data_offsets"][0]
        arrays[name] = np.frombuffer(content, _TYPES[entry["dtype"]], count, offset)
    return header["__metadata__"], arrays


def _checksum(content: str, arrays: Mapping[str, np.ndarray]) -> int:
    checksum = zlib.crc32(content.encode())
    for name in _COLUMNS:
        checksum = zlib.crc32(arrays[name].data, checksum)
    return checksum
