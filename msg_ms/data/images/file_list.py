"""Many file names in little memory, which processes of one machine can share."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import overload

import numpy as np

from ..pixels.image_files import read_file


class FileList(Sequence[str]):
    """Paths below one folder, as one block of bytes: 40 MB for a million files of ImageNet.

    Args:
        root: The folder.
        names: uint8: the paths below it as the file system encodes them, each with a zero behind it.
        ends: int64 (n,): where these zeros are.
    """

    def __init__(self, root: str, names: np.ndarray, ends: np.ndarray):
        self.root, self.names, self.ends = root, names, ends

    @classmethod
    def of(cls, root: str, groups: Iterable[Sequence[str]]) -> FileList:
        """Pack groups of names below ``root``."""
        parts, ends, size = [], [np.empty(0, np.int64)], 0
        for group in groups:
            part = os.fsencode("\0".join([*group, ""])) if group else b""
            parts.append(part)
            ends.append(np.flatnonzero(np.frombuffer(part, np.uint8) == 0) + size)
            size += len(part)
        return cls(root, np.frombuffer(b"".join(parts), np.uint8), np.concatenate(ends))

    def name(self, index: int) -> str:
        """Return a path below the folder."""
        begin = self.ends[index - 1] + 1 if index else 0
        return os.fsdecode(self.names[begin : self.ends[index]].tobytes())

    def shown(self, index: int) -> str:
        """Return the path of a file."""
        return os.path.join(self.root, self.name(index))  # noqa: PTH118 (speed)

    def read(self, index: int) -> bytes:
        """Return the content of a file."""
        return read_file(self.shown(index))

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self.shown(range(len(self))[index])

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))

    def pieces(self) -> Iterator[bytes]:
        """Yield the names as bytes, for a checksum."""
        yield self.names.tobytes()

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return everything but the root as arrays, for other processes."""
        return {"names": self.names, "ends": self.ends}

    @classmethod
    def from_arrays(cls, root: str, arrays: Mapping[str, np.ndarray]) -> FileList:
        """Return the list of ``to_arrays``; the arrays stay where they are."""
        return cls(root, arrays["names"], arrays["ends"])
