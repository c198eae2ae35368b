"""Files and folders that are written completely or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import UserError

PARTIAL = ".partial-msg_ms-"  # prefix of the temporary folder that holds a file while it is written
_PARTIAL_NAME = re.compile(re.escape(PARTIAL) + "[a-z0-9_]{8}")  # the random part is tempfile's
_ABANDONED = 86_400.0  # seconds; for file systems without locks


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


@contextlib.contextmanager
def _partial_folder(parent: Path) -> Iterator[Path]:
    """Create a temporary folder that is locked as long as it is in use."""
    with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=parent, ignore_cleanup_errors=True) as name:
        lock = os.open(name, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield Path(name)
        finally:
            os.close(lock)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Write ``path`` completely or not at all.

    When the block ends without an error, the file is flushed to disk and moved into place. Otherwise it is removed.
    A killed process leaves its temporary folder behind; ``remove_partial`` deletes such folders.

    Args:
        path: Destination. Missing parent folders are created, and an existing file is replaced.

    Yields:
        A temporary path with the same file name, in a new folder next to ``path``.

    Raises:
        UserError: The file cannot be written, for example because the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _partial_folder(path.parent) as folder:
            temporary = folder / path.name
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            _flush(temporary)
            temporary.replace(path)
        _flush(path.parent)
    except OSError as error:
        raise UserError(f"can't write {path}: {error.strerror or error}") from None


@contextlib.contextmanager
def _end_by_exception() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise SystemExit in the block, so that temporary files are removed."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP
                before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_abandoned(folder: Path) -> bool:
    """Return whether no process uses a temporary folder."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return time.time() - os.fstat(lock).st_mtime > _ABANDONED
    finally:
        os.close(lock)


def remove_partial(folder: Path) -> None:
    """Remove temporary folders that killed processes left in ``folder``; those of running processes stay."""
    for leftover in folder.glob(f"{PARTIAL}*"):
        if _PARTIAL_NAME.fullmatch(leftover.name) and _is_abandoned(leftover):
            shutil.rmtree(leftover, ignore_errors=True)


@contextlib.contextmanager
def new_folder(path: Path, check: Callable[[], None] | None = None) -> Iterator[Path]:
    """Fill a new folder completely or not at all: under another name, and renamed when the block ends.

    Args:
        path: Destination; it must not exist, or be an empty folder. Missing parent folders are created.
        check: Allows a folder with content, which is replaced. It is called when the block ends, and raises an error
            if the folder must stay.

    Yields:
        An empty folder, in a temporary folder next to ``path``. A killed process leaves it behind, and the
        next call removes it.

    Raises:
        UserError: The folder can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_partial(path.parent)
        with _end_by_exception(), _partial_folder(path.parent) as folder:
            filling = folder / "new"
            filling.mkdir()
            yield filling
            filling.chmod(0o755)
            if check is not None and path.exists():
                check()
                path.rename(folder / "old")
            try:
                filling.rename(path)  # replaces an empty folder only
            except OSError:
                if (folder / "old").exists():
                    (folder / "old").rename(path)
                raise
    except OSError as error:
        raise UserError(f"can't write {path}: {error.strerror}") from None
