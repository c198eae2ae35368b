"""Problems of an annotation file by kind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import UserError, printable, shorten

_MOST_KINDS = 6  # in one line


@dataclass
class Findings:
    """Problems of an annotation file by kind: errors and warnings."""

    file: Path
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def error(self, kind: str, cases: Iterable[Any], remedy: str) -> None:
        """Note an error if there are cases of it."""
        if shown := _shown(cases):
            self.errors.append(f"{kind}: {shown}; {remedy}")

    def warn(self, kind: str, cases: Iterable[Any]) -> None:
        """Note a warning if there are cases of it."""
        if shown := _shown(cases):
            self.warnings.append(f"{self.file}: {kind}: {shown}")

    def raise_errors(self) -> None:
        """Raise UserError with the errors, if there are any."""
        if not self.errors:
            return
        others = len(self.errors) - _MOST_KINDS
        more = f"; and {others} more kinds of problems" if others > 0 else ""
        raise UserError(f"{self.file}: {'; '.join(self.errors[:_MOST_KINDS])}{more}")


def _shown(cases: Iterable[Any]) -> str:
    cases = list(cases)
    return shorten([printable(str(case), 120) for case in cases])
