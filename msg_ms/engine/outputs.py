"""The outputs that a person asks an evaluation for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class EvalOutputs:
    """The outputs of an evaluation besides its metrics.

    Attributes:
        results: File for the outputs for every sample; None for none.
        per_class: Whether the metrics of each class are asked for.
        report: Folder for a report; None for none.
    """

    results: Path | None = None
    per_class: bool = False
    report: Path | None = None

    @property
    def flags(self) -> list[str]:
        """The flags of the outputs that are asked for."""
        wanted = (self.results is not None, self.per_class, self.report is not None)
        return [flag for flag, w in zip(("--results", "--per-class", "--report"), wanted, strict=True) if w]
