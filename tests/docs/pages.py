"""Read the commands and code blocks of the README files, CONTRIBUTING.md and the guides."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The English README comes first, so that run_all.py recognizes the commands of its translation as repeated.
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("README.*.md")), ROOT / "CONTRIBUTING.md"]
# The commands of these pages are those of the English ones; test_translation.py compares them.
CHINESE = sorted((ROOT / "docs" / "zh").glob("*.md"))
PAGES += sorted(page for page in (ROOT / "docs").rglob("*.md") if page not in CHINESE)
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:\w+=\S+ )*(?:python|bash|msg-ms-\w+) [^`]+)`")


@dataclass(frozen=True)
class Command:
    """A command on one line, without its comment."""

    page: str
    line: int
    text: str
    span: bool = False  # in a sentence, which may omit some of the flags

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"

    @property
    def words(self) -> list[str]:
        """The command's words without leading variable assignments."""
        words = shlex.split(self.text)
        while re.match(r"\w+=", words[0]):
            words.pop(0)
        return words

    @property
    def fragment(self) -> bool:
        """Whether the command is abbreviated, as in ``eval.py ...``."""
        return "..." in self.text


def blocks(page: Path, language: str) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of each code block in ``language``."""
    text = page.read_text(encoding="utf-8")
    for block in BLOCK.finditer(text):
        if block[1] == language:
            yield text.count("\n", 0, block.start()) + 2, block[2]


def without_comments(text: str) -> str:
    """Remove shell, Python and YAML comments, trailing spaces and empty lines."""
    lines = [re.sub(r"(^|\s+)#.*", "", line).rstrip() for line in text.splitlines()]
    return "\n".join(line for line in lines if line)


def prose(page: Path) -> str:
    """Return the page with its code blocks blanked, so that line numbers stay."""
    return BLOCK.sub(lambda block: re.sub(r"[^\n]", " ", block[0]), page.read_text(encoding="utf-8"))


def commands() -> list[Command]:
    """Return the commands of all pages in order: lines of ``bash`` blocks, and code spans that begin like a command."""
    result = []
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
                if command := without_comments(text):
                    of_page.append(Command(name, begin, command))
                text = ""
        text = prose(page)
        for span in INLINE.finditer(text):
            of_page.append(Command(name, text.count("\n", 0, span.start()) + 1, " ".join(span[1].split()), span=True))
        result += sorted(of_page, key=lambda command: command.line)
    return result
