"""Entries of folders, with errors in one line."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...errors import UserError
from ..pixels import native
from .class_files import composed


def file_sizes(folder: str, names: list[str]) -> Sequence[int]:
    """Return the sizes of files below a folder; raise UserError if one can't be read."""
    sizes = native.file_sizes(folder, names)
    if sizes is not None and min(sizes, default=0) >= 0:
        return sizes
    result = []
    for name in names:
        path = f"{folder}/{name}"
        try:
            result.append(os.stat(path).st_size)  # noqa: PTH116 (speed)
        except OSError as error:
            raise UserError(f"can't read {path}: {error.strerror}") from None
    return result


@contextlib.contextmanager
def reading_folder(folder: str | Path) -> Iterator[None]:
    """Raise UserError where the block can't read a folder."""
    try:
        yield
    except OSError as error:
        raise UserError(f"can't read the folder {folder}: {error.strerror}") from None


def entries_of(folder: str | Path) -> list[os.DirEntry]:
    """Return the entries of a folder, sorted by name; raise UserError if it can't be read."""
    with reading_folder(folder), os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def is_folder(entry: os.DirEntry) -> bool:
    """Return whether an entry is a folder or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def is_file(entry: os.DirEntry) -> bool:
    """Return whether an entry is a file or a link to one."""
    try:
        return entry.is_file()
    except OSError:  # a link to itself
        return False


def stored_name(name: str) -> str:
    """Return a UTF-8 name as Python decodes it from the disk, which depends on the locale."""
    return os.fsdecode(name.encode("utf-8", "surrogateescape"))


def paths_by_composed_name(root: Path) -> dict[str, str]:
    """Return the paths of all files below a folder by their composed form: lists and disks differ in accents."""
    paths = [os.path.join(top, name) for top, _, names in os.walk(root) for name in names]  # noqa: PTH118 (speed)
    below = [os.path.relpath(path, root) for path in paths]
    return {composed(os.fsencode(path).decode("utf-8", "surrogateescape")): path for path in below}


def folder_identity(path: str) -> tuple[int, int]:
    """Return the device and number of a folder; links to it have the same."""
    try:
        status = os.stat(path)  # noqa: PTH116 (speed)
    except OSError as error:
        raise UserError(f"can't read the folder {path}: {error.strerror}") from None
    return status.st_dev, status.st_ino


def is_directory(path: Path) -> bool:
    """Return whether a path is a folder; raise UserError if that can't be known."""
    try:
        return path.is_dir()
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror}") from None


def has_content(path: str) -> bool:
    """Return whether a path is a file that is not empty.

    Raises:
        UserError: The file's folder can't be read.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 (speed)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror}") from None
    return stat.S_ISREG(status.st_mode) and status.st_size > 0
