"""Everything that an import left out or changed, counted and named."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import printable, shorten

_SHOWN = 3  # cases of a kind
_LONGEST = 200  # characters of a case


@dataclass
class Notes:
    """Annotations and images that were skipped or changed, by kind.

    Attributes:
        root: Folder of the export, which the paths leave out.
        skipped: Number of cases and the first ones, by kind.
        changed: The same for annotations that were kept in another form.
        remarks: Lines on the whole export.
    """

    root: Path | None = None
    skipped: dict[str, tuple[int, list[str]]] = field(default_factory=dict)
    changed: dict[str, tuple[int, list[str]]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def skip(self, kind: str, case: object) -> None:
        """Note something that is left out.

        Args:
            kind: The problem in words, in the plural.
            case: Where it is, such as a file and line.
        """
        self._add(self.skipped, kind, case)

    def change(self, kind: str, case: object) -> None:
        """Note something that is kept in another form; see ``skip``."""
        self._add(self.changed, kind, case)

    def remark(self, line: str) -> None:
        """Note something about the whole export, once."""
        if line not in self.remarks:
            self.remarks.append(line)

    def _add(self, kinds: dict[str, tuple[int, list[str]]], kind: str, case: object) -> None:
        count, cases = kinds.get(kind, (0, []))
        if count < _SHOWN:
            prefix = "" if self.root is None else f"{self.root}/"
            cases.append(printable(str(case).replace(prefix, ""), _LONGEST))
        kinds[kind] = (count + 1, cases)

    def lines(self) -> list[str]:
        """Return a line for each kind and each remark."""
        return [*self.remarks, *_lines("changed", self.changed), *_lines("skipped", self.skipped)]

    def reasons(self) -> str:
        """Return everything that was skipped in one line, for an error."""
        return "; ".join(_lines("skipped", self.skipped))


def _lines(title: str, kinds: dict[str, tuple[int, list[str]]]) -> Iterable[str]:
    for kind, (count, cases) in kinds.items():
        more = f" and {count - len(cases)} more" if count > len(cases) else ""
        yield f"{title} {count}: {kind}: {shorten(cases, _SHOWN)}{more}"
