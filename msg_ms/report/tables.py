"""Tables as CSV that spreadsheets can open without harm."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..files import readable

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a cell that begins so is a formula for spreadsheets


def cell(value: Any) -> Any:
    """Return a value for CSV: an apostrophe before text that would be a formula, nothing for an undefined number."""
    if isinstance(value, str):
        text = readable(value)
        return f"'{text}" if text.startswith(_FORMULA) else text
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return value


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table as UTF-8 with commas and one header line."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([cell(value) for value in row] for row in rows)
