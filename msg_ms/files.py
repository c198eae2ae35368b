"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import UserError

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
