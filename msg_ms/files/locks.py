"""Locks of folders."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from typing import IO

from ..errors import UserError

LOCK = ".lock"  # held by the run that writes to a folder


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
