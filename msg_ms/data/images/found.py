"""Entries of a data set that are no usable images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ...errors import UserError, shorten


@dataclass
class Found:
    """Entries below the class folders that are not images, with their paths below ``root``."""

    root: str
    others: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    dangling: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)

    def raise_problems(self, classes_without_images: Sequence[str]) -> None:
        """Raise UserError if there are files that can't be used, or classes without images."""
        problems = [
            f"{kind}: {shorten(names)}; {remedy}"
            for kind, names, remedy in (
                ("class folders without images", classes_without_images, "remove or fill them"),
                ("empty files", self.empty, "remove or download them again"),
                ("links to missing files", self.dangling, "remove or repair them"),
            )
            if names
        ]
        if problems:
            raise UserError(f"{self.root}: {'; '.join(problems)}")

    def ignored(self) -> list[str]:
        """Return a line for each kind of ignored entry."""
        return [
            f"ignored {len(names)} {kind}: {shorten(names)}"
            for kind, names in (
                ("hidden folders", self.hidden),
                ("links to folders that are listed already", self.repeated),
                ("entries that are not images", self.others),
            )
            if names
        ]
