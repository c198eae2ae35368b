"""Reading a part of a file."""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError


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
