"""Errors for the user of a command, and helpers for their texts."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Sequence
from typing import Any

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 100


class UserError(ValueError):
    """Error that the user can fix: the text names the field, its value and the remedy."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Suggest the known name that is closest to a misspelled one.

    Args:
        name: The misspelled name.
        known: All valid names.

    Returns:
        ``"; did you mean 'X'?"``, or an empty string if no valid name is similar.
    """
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def shorten(names: Sequence[str], limit: int = 5, separator: str = ", ") -> str:
    """Join the first ``limit`` names, safe for a terminal, and append the number of the remaining ones."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return separator.join(map(printable, names[:limit])) + more


def printable(text: str, limit: int = 1000) -> str:
    """Make text from a file safe for a terminal.

    Args:
        text: Any text.
        limit: Maximum number of characters.

    Returns:
        The text with control characters and undecodable bytes escaped, truncated after ``limit`` characters.
    """
    shown = "".join(c if c.isprintable() else _escaped(c) for c in text[:limit])
    return shown if len(text) <= limit else f"{shown}..."


def shown(value: Any) -> str:
    """Return a value of a user for a message, shortened and safe for a terminal."""
    try:
        return printable(_REPR.repr(value), 200)
    except Exception:  # an object whose repr fails
        return type(value).__name__


def _escaped(character: str) -> str:
    byte = ord(character) - 0xDC00  # file names hold undecodable bytes as lone surrogates
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else ascii(character)[1:-1]


def refuse_options(options: object, *names: str, reason: str) -> None:
    """Raise UserError if an option is set that does not suit the task.

    Args:
        options: An object with the values of flags; None and False mean that a flag is not set.
        names: Names of the fields, which are those of the flags with ``_`` for ``-``.
        reason: The end of the message, after the flag.
    """
    for name in names:
        if getattr(options, name) not in (None, False):
            raise UserError(f"--{name.replace('_', '-')} {reason}")
