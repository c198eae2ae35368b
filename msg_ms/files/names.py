"""Names and paths of users: bytes that are not text, and home folders."""

from __future__ import annotations

import codecs
import os
from pathlib import Path
from typing import Any

from ..errors import UserError, shown

ESCAPE = "msg_ms.escape"  # error handler of encodings that can't fail, see ``readable``


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


def as_path(name: str, value: Any) -> Path:
    """Return the path that a caller in Python passed, text or a path, with ``~`` expanded.

    Args:
        name: The argument's name, for messages.
        value: Its value.

    Raises:
        UserError: If the value is no path.
    """
    try:
        text = os.fspath(value)
    except Exception:  # of a user's object
        text = None
    if not isinstance(text, str) or not text:
        raise UserError(f"{name}={shown(value)}: must be a path")
    if "\0" in text:
        raise UserError(f"{name}={shown(value)}: must not contain a null character")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise UserError(f"{name}={shown(value)}: has characters that a file name can't have") from None
    return user_path(text)
