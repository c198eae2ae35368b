"""Images inside uncompressed tar files, read by offset."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..pixels.image_files import ChangedData
from .file_list import FileList

COMMAND = "python tools/index_tar_files.py"


class TarFile(NamedTuple):
    """An indexed tar file.

    Attributes:
        name: Its file name.
        size: Its size in bytes.
        modified: Time of its last change, in whole seconds: copies to other file systems lose the fraction.
    """

    name: str
    size: int
    modified: int

    @classmethod
    def of(cls, name: str, status: os.stat_result) -> TarFile:
        """Return the description of a file with this status."""
        return cls(name, status.st_size, int(status.st_mtime))


class _Descriptor:
    """An open file; it is closed when the last thread that reads it has let go of it."""

    def __init__(self, path: str):
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self):
        if hasattr(self, "number"):  # open may have failed
            os.close(self.number)


class TarFileList(FileList):
    """Images in the tar files of one folder, in the order of ``names``.

    Any number of threads and forked processes may read: a read has an offset of its own. Tar files are opened when they
    are first read, and the least recently used ones are closed.

    Args:
        root: The folder.
        names: The images' names as a ``FileList`` has them: their paths without ``root``, as if the tar files were
            extracted there.
        ends: As in ``FileList``.
        tars: The tar files.
        numbers: int32 (n,): the tar file of each image.
        offsets: int64 (n,): where each image begins in it, in bytes.
        sizes: int64 (n,): bytes of each image.
    """

    OPEN = 256  # tar files; most systems allow 1,024 open files

    def __init__(
        self,
        root: str,
        names: np.ndarray,
        ends: np.ndarray,
        tars: Sequence[TarFile],
        numbers: np.ndarray,
        offsets: np.ndarray,
        sizes: np.ndarray,
    ):
        super().__init__(root, names, ends)
        self.tars, self.numbers, self.offsets, self.sizes = tuple(tars), numbers, offsets, sizes
        self._open = functools.lru_cache(self.OPEN)(functools.partial(_open, root, self.tars))

    def shown(self, index: int) -> str:
        """Return the path of an image's tar file, and the image's name in it."""
        return f"{os.path.join(self.root, self.tars[self.numbers[index]].name)}:{self.name(index)}"  # noqa: PTH118

    def read(self, index: int) -> bytes:
        """Return an image's content.

        Raises:
            ChangedData: The tar file is not the one that was indexed.
        """
        number, offset, size = int(self.numbers[index]), int(self.offsets[index]), int(self.sizes[index])
        descriptor = self._open(number)
        content = os.pread(descriptor.number, size, offset)
        while len(content) < size:
            more = os.pread(descriptor.number, size - len(content), offset + len(content))
            if not more:
                raise ChangedData(f"{self.shown(index)} ends after {len(content)} of {size} bytes; {RESTORE}")
            content += more
        return content

    def close(self) -> None:
        """Close the tar files; the next read opens its file again."""
        self._open.cache_clear()

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return everything but the root as arrays, for other processes."""
        return {
            **super().to_arrays(),
            "tars": np.frombuffer(json.dumps(self.tars).encode(), np.uint8),
            "numbers": self.numbers,
            "offsets": self.offsets,
            "sizes": self.sizes,
        }

    @classmethod
    def from_arrays(cls, root: str, arrays: Mapping[str, np.ndarray]) -> TarFileList:
        """Return the list of ``to_arrays``; the arrays stay where they are."""
        tars = [TarFile(*row) for row in json.loads(arrays["tars"].tobytes())]
        columns = (arrays[name] for name in ("numbers", "offsets", "sizes"))
        return cls(root, arrays["names"], arrays["ends"], tars, *columns)


RESTORE = "restore the tar file, or run tools/index_tar_files.py again and restart"


def _open(root: str, tars: Sequence[TarFile], number: int) -> _Descriptor:
    """Open a tar file; raise ChangedData unless it is the one that was indexed."""
    expected = tars[number]
    path = os.path.join(root, expected.name)  # noqa: PTH118 (speed)
    try:
        descriptor = _Descriptor(path)
        found = TarFile.of(expected.name, os.fstat(descriptor.number))
    except OSError as error:
        raise ChangedData(f"can't read {path}: {error.strerror}") from None
    if found != expected:
        raise ChangedData(f"{path} has changed since the run started; {RESTORE}")
    return descriptor
