"""The commands that README.md and the guides show, taken out of their text."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^ *```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:\w+=\S+ )*(?:python|bash) [^`]+)`")


@dataclass(frozen=True)
class Command:
    """A command as a reader would copy it, on one line and without its comment."""

    page: str
    line: int
    text: str
    span: bool = False  # in a sentence, which may leave out what it isn't about

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"

    @property
    def words(self) -> list[str]:
        """Its words without the variables that are set before it."""
        words = shlex.split(self.text)
        while re.match(r"\w+=", words[0]):
            words.pop(0)
        return words

    @property
    def fragment(self) -> bool:
        """Whether something is left out on purpose, as in ``eval.py ...``."""
        return "..." in self.text


def blocks(page: Path, language: str) -> Iterator[tuple[int, str]]:
    """(line, text) of each code block in ``language``."""
    text = page.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        if found[1] == language:
            yield text.count("\n", 0, found.start()) + 2, found[2]


def commands() -> list[Command]:
    """Every command of every page, in their order: lines of ``bash`` blocks and code spans that begin as one does."""
    found = []
    for page in PAGES:
        name = str(page.relative_to(ROOT))
        of_page = []
        for first, block in blocks(page, "bash"):
            begin, text = first, ""
            for number, line in enumerate(block.splitlines(), first):
                begin = begin if text else number
                text += line.strip()
                if text.endswith("\\"):
                    text = text[:-1]
                    continue
                if command := re.sub(r"(^|\s+)#.*", "", text):
                    of_page.append(Command(name, begin, command))
                text = ""
        prose = page.read_text(encoding="utf-8")
        prose = BLOCK.sub(lambda block: re.sub(r"[^\n]", " ", block[0]), prose)
        for span in INLINE.finditer(prose):
            of_page.append(Command(name, prose.count("\n", 0, span.start()) + 1, " ".join(span[1].split()), span=True))
        found += sorted(of_page, key=lambda command: command.line)
    return found
