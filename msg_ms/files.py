"""Atomic file writes, locks and owners of folders, names and paths of users, and standard streams that are closed."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import grp
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from .errors import UserError

LOCK = ".lock"  # held by the run that writes to a folder
PARTIAL = ".partial-msg_ms-"  # prefix of the temporary folder that holds a file while it is written
ESCAPE = "msg_ms.escape"  # error handler of encodings that can't fail, see ``readable``
_PARTIAL_NAME = re.compile(re.escape(PARTIAL) + "[a-z0-9_]{8}")  # the random part is tempfile's
_ABANDONED = 86_400.0  # seconds; for file systems without locks


def open_standard_streams() -> None:
    """Open the null device for each standard stream that is closed.

    Otherwise the next files that a library opens would become standard input, output or error.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # the lowest free descriptor is this one
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for descriptor, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:  # Python found it closed
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    # Python decodes a byte that is not UTF-8, such as 0xff, as the surrogate 0xdcff.
    codes = [ord(letter) for letter in error.object[error.start : error.end]]
    return "".join(
        f"\\x{code & 0xFF:02x}" if code < 0x100 or 0xDC80 <= code < 0xDD00 else ascii(chr(code))[1:-1] for code in codes
    ), error.end


codecs.register_error(ESCAPE, _escape)


def readable(name: str | os.PathLike[str]) -> str:
    r"""Return a file name as text that can be encoded as UTF-8: a byte that is not UTF-8 becomes ``\xff``."""
    return os.fspath(name).encode("utf-8", ESCAPE).decode("utf-8")


def user_path(text: str) -> Path:
    """Return the path that a user wrote, with ``~`` and ``~user`` expanded.

    Raises:
        UserError: If there is no such home folder.
    """
    expanded = os.path.expanduser(text)  # noqa: PTH111 (Path's raises RuntimeError)
    if expanded.startswith("~"):
        home = text.split("/")[0]
        raise UserError(f"{text}: there is no home folder {home}; ./{home} is a folder of that name")
    return Path(expanded)


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
def new_folder(path: Path) -> Iterator[Path]:
    """Fill a new folder completely or not at all: under another name, and renamed when the block ends.

    Args:
        path: Destination; it must not exist, or be an empty folder. Missing parent folders are created.

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
            filling.rename(path)  # replaces an empty folder only
    except OSError as error:
        raise UserError(f"can't write {path}: {error.strerror}") from None


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


def head_of_file(path: Path, size: int) -> bytes | None:
    """Return the first bytes of a file; None if there is none.

    Raises:
        UserError: The file can't be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(size)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror or error}") from None


def remove_partial(folder: Path) -> None:
    """Remove temporary folders that killed processes left in ``folder``; those of running processes stay."""
    for leftover in folder.glob(f"{PARTIAL}*"):
        if _PARTIAL_NAME.fullmatch(leftover.name) and _is_abandoned(leftover):
            shutil.rmtree(leftover, ignore_errors=True)


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


def lock_folder(folder: Path) -> IO[str]:
    """Lock a folder until the returned file is closed, or this process ends.

    Returns:
        The lock's file, to be kept open. File systems without locks grant every lock.

    Raises:
        UserError: If another process holds the lock, or the file can't be written.
    """
    try:
        file = (folder / LOCK).open("a+", encoding="utf-8", errors="replace")
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


def make_folder(folder: Path) -> None:
    """Create a folder and its missing parents, writable by their owner only, under any umask."""
    for path in (*reversed(folder.parents), folder):
        if not path.is_dir():
            path.mkdir(0o755, exist_ok=True)


def written_by_others(path: Path, mask: int = 0o022) -> str:
    """Return why another user could have written a file, or entries of a folder.

    Args:
        path: An existing file or folder.
        mask: Permission bits that only the owner may have. The owner's private group counts as the owner.

    Returns:
        The reason, empty if only this user and root can write there.
    """
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return f"{path} is a symbolic link"
    if status.st_uid not in (0, os.geteuid()):
        return f"{path} belongs to user {status.st_uid}"
    if _is_private_group(status):
        mask &= ~0o020
    return f"{path} is writable by others" if status.st_mode & mask else ""


def folder_written_by_others(folder: Path) -> str:
    """Return why another user could have written to a folder or replaced it, empty if only this user and root can."""
    for path in (folder, *folder.parents):
        reason = written_by_others(path)
        # In a sticky folder such as /tmp, others can't rename or remove this user's entries.
        if reason and (path == folder or not path.stat().st_mode & stat.S_ISVTX):
            return reason
    return ""


def _is_private_group(status: os.stat_result) -> bool:
    """Return whether the group of a file is its owner's own, as systems with umask 002 create it."""
    try:
        owner, group = pwd.getpwuid(status.st_uid), grp.getgrgid(status.st_gid)
    except KeyError:
        return False
    return owner.pw_gid == group.gr_gid and owner.pw_name == group.gr_name and set(group.gr_mem) <= {owner.pw_name}


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
