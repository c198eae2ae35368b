"""Errors that speak to the person at the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake that the user can mend: the text names the field, its value and the remedy."""


def nearest(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'X'?"`` for the closest of ``known``, or an empty string when nothing is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""
