"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from .errors import UserError

LOCK = ".lock"  # is held by the run that writes to a folder
PARTIAL = ".partial-"  # folders that hold a file while it is written begin like this


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A path of the same name to write to, in a folder of its own beside ``path``.

    When the block ends well the file is flushed to the disk and moved into place; else nothing remains of it. Raises
    UserError where the disk doesn't take it. A process that is killed leaves the folder, see :func:`remove_partial`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=path.parent, ignore_cleanup_errors=True) as folder:
            temporary = Path(folder) / path.name
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            _flush(temporary)
            temporary.replace(path)
        _flush(path.parent)
    except OSError as error:
        raise UserError(f"can't write {path}: {error.strerror or error}") from None


def remove_partial(folder: Path) -> None:
    """Remove what killed processes left of files they were writing into ``folder``."""
    for leftover in folder.glob(f"{PARTIAL}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def lock_folder(folder: Path) -> IO[str]:
    """Lock a folder until the returned file is closed, or this process ends.

    Returns:
        The lock's file, to be kept open. File systems without locks grant every lock.

    Raises:
        UserError: If another process holds the lock, or the file can't be written.
    """
    try:
        file = (folder / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise UserError(f"can't write {folder / LOCK}: {error.strerror or error}") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise UserError(f"{folder} is in use by another run ({file.read().strip()}): use another --tag") from None
    except OSError:  # a file system without locks
        return file
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
