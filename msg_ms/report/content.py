"""The content of a report, for any task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import printable
from ..files import readable

LONGEST = 120  # characters of a name on the page
UNDEFINED = "\N{EN DASH}"


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        key: Its name in JSON and CSV.
        title: Its name on the page; empty for ``key``.
        format: A format string for its numbers on the page.
    """

    key: str
    title: str = ""
    format: str = "{}"

    @property
    def heading(self) -> str:
        """The name on the page."""
        return self.title or self.key

    def text(self, value: Any) -> str:
        """Return a value as the page shows it."""
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            return UNDEFINED
        return shown(value) if isinstance(value, str) else self.format.format(value)


@dataclass(frozen=True)
class Table:
    """Numbers that the report has as CSV, as JSON, and on the page.

    Attributes:
        name: Stem of its CSV file, and its key in JSON.
        columns: The columns.
        rows: Values in the order of the columns: text, numbers, or None where undefined.
        in_json: Whether JSON has it, too.
    """

    name: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    in_json: bool = True

    def records(self) -> list[dict[str, Any]]:
        """Return the rows for JSON."""
        keys = [column.key for column in self.columns]
        return [dict(zip(keys, row, strict=True)) for row in self.rows]

    def texts(self) -> list[list[str]]:
        """Return the rows as the page shows them."""
        return [[c.text(value) for c, value in zip(self.columns, row, strict=True)] for row in self.rows]

    def numeric(self) -> list[bool]:
        """Return which columns hold numbers."""
        return [not any(isinstance(row[i], str) for row in self.rows) for i in range(len(self.columns))]


@dataclass(frozen=True)
class Image:
    """An encoded image of the page.

    Attributes:
        content: The encoded image.
        kind: Its media type.
        lines: The lines below it, or of a chart its description.
    """

    content: bytes
    kind: str
    lines: Sequence[str]


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        title: Its heading.
        text: Its paragraphs.
        charts: Wide images, one below the other.
        table: A table.
        rows_shown: The most rows of the table on the page; None for all.
        images: Groups of images, each group in one frame.
    """

    title: str
    text: Sequence[str] = ()
    charts: Sequence[Image] = ()
    table: Table | None = None
    rows_shown: int | None = None
    images: Sequence[Sequence[Image]] = ()


@dataclass(frozen=True)
class Report:
    """Everything that a report has.

    Attributes:
        title: The heading of the page.
        metrics: Key, title, value and text of each metric.
        sections: The parts of the page.
        tables: All tables that become files; those of the sections are among them.
        numbers: Further numbers for JSON.
    """

    title: str
    metrics: Sequence[tuple[str, str, float | None, str]]
    sections: Sequence[Section]
    tables: Sequence[Table]
    numbers: dict[str, Any] = field(default_factory=dict)


def shown(text: str, limit: int = LONGEST) -> str:
    """Return a name for the page: on one line, without control characters, and shortened."""
    return printable(readable(text), limit)
