"""Errors that speak to the person at the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class UserError(ValueError):
    """A mistake that the user can mend: the text names the field, its value and the remedy."""


def nearest(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'X'?"`` for the closest of ``known``, or an empty string when nothing is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def shorten(names: Sequence[str], limit: int = 5, separator: str = ", ") -> str:
    """The first ``limit`` names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return separator.join(names[:limit]) + more


def printable(text: str, limit: int = 1000) -> str:
    """Text from a file as a terminal may have it: control characters escaped, cut after ``limit`` characters."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:limit])
    return shown if len(text) <= limit else f"{shown}..."
