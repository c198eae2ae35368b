"""Files of results that are replaced only by files of the same kind."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import head_of_file

_HEAD = 2**22  # bytes of an older file that are looked at; a mask needs up to a megabyte


def check_results(path: Path, suffixes: Sequence[str], is_ours: Callable[[str], bool], content: str) -> None:
    """Raise UserError if a file of results can't be written, or exists and is not one.

    Args:
        path: The file.
        suffixes: The endings that its name may have.
        is_ours: Whether the beginning of a file is that of a file of results.
        content: The content of such a file in words.
    """
    if path.suffix.lower() not in suffixes:
        raise UserError(f"--results {path}: must end in {' or '.join(suffixes)}")
    if path.parent.is_dir() and not os.access(path.parent, os.W_OK | os.X_OK):
        raise UserError(f"--results {path}: can't write to the folder {path.parent}: Permission denied")
    head = head_of_file(path, _HEAD)
    if head is not None and not is_ours(head.decode("utf-8", "replace")):
        raise UserError(f"--results {path}: exists and holds no {content}; name another file")


def list_begins_with(text: str, is_ours: Callable[[dict[str, Any]], bool]) -> bool:
    """Return whether text is the beginning of a JSON list whose first element fits, or an empty list."""
    text = text.lstrip()
    if text.strip() == "[]":
        return True
    try:
        first, _ = json.JSONDecoder().raw_decode(text, len(text) - len(text[1:].lstrip()))
    except (ValueError, RecursionError):
        return False
    return text[:1] == "[" and isinstance(first, dict) and is_ours(first)
