"""The folder of a report: written completely or not at all, and replaced only if it is a report."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError, shorten
from ..files import new_folder, readable
from ..version import __version__
from .content import Report
from .page import check_libraries, render
from .tables import write_csv

PAGE, METRICS = "report.html", "metrics.json"
GENERATOR = "msg_ms report"


def check_report(folder: Path) -> None:
    """Raise UserError if a report can't be written to a folder, or the folder exists and is not one."""
    check_libraries()
    if os.path.lexists(folder):
        check_own(folder)
    parent = next((path for path in folder.absolute().parents if path.exists()), Path("/"))
    if not parent.is_dir():
        raise UserError(f"--report {folder}: {parent} is not a folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"--report {folder}: can't write to the folder {parent}: Permission denied")


def check_own(folder: Path) -> None:
    """Raise UserError if an existing path is neither an empty folder nor a report without further files."""
    if folder.is_symlink() or not folder.is_dir():
        raise UserError(f"--report {folder}: exists and is not a folder; name another one")
    try:
        names = set(os.listdir(folder))
    except OSError as error:
        raise UserError(f"--report {folder}: can't be read: {error.strerror or error}") from None
    foreign = sorted(names - _own_files(folder))
    if foreign:
        raise UserError(
            f"--report {folder}: holds files that are no part of a report ({shorten(foreign)}); name another folder"
        )


def _own_files(folder: Path) -> set[str]:
    """Return the names of the files that the report in a folder consists of; none if it holds no report."""
    try:
        content = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        if content["generator"].startswith(GENERATOR):
            return {name for name in content["files"] if (folder / name).is_file()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    return set()


def write_report(folder: Path, report: Report, facts: Sequence[tuple[str, str]]) -> None:
    """Write a report; an older report in the folder is replaced.

    Args:
        folder: Where to; missing parent folders are created.
        report: The content.
        facts: Names and values that identify the evaluation.

    Raises:
        UserError: The folder can't be written, or holds anything but a report.
    """
    tables = {f"{table.name}.csv": table for table in report.tables}
    metrics = {key: value for key, _, value, _ in report.metrics}
    content = {
        "generator": f"{GENERATOR} {__version__}",
        "files": [PAGE, METRICS, "metrics.csv", *tables],
        **{name.replace(" ", "_"): readable(value) for name, value in facts},
        "metrics": metrics,
        **report.numbers,
        **{table.name: table.records() for table in report.tables if table.in_json},
    }
    with new_folder(folder, lambda: check_own(folder)) as new:
        (new / PAGE).write_text(render(report, facts), encoding="utf-8")
        text = json.dumps(valid(content), indent=1, ensure_ascii=False, allow_nan=False)
        (new / METRICS).write_text(text + "\n", encoding="utf-8")
        write_csv(new / "metrics.csv", ("metric", "value"), list(metrics.items()))
        for name, table in tables.items():
            write_csv(new / name, [column.key for column in table.columns], table.rows)


def valid(value: Any) -> Any:
    """Return a value as JSON can hold it: None for NaN and infinities, and text that UTF-8 can encode."""
    if isinstance(value, dict):
        return {key: valid(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [valid(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return readable(value) if isinstance(value, str) else value
