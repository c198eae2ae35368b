"""The structure of a page or a notebook: sections of blocks, each with its line (or cell) and its text."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

FENCE = re.compile(r" *```")
HEADING = re.compile(r"(#+) (.*)")
ITEM = re.compile(r" *(?:[-*]|\d+\.) ")
SPAN = re.compile(r"`[^`]+`")
OUTPUT = "```output"
LINK = re.compile(r"\]\(([^)\s]+)\)|^\[\w+\]: (\S+)", re.MULTILINE)


@dataclass
class Block:
    """A paragraph, an item of a list, a row of a table, an image, a code block or an output, with its first line."""

    kind: str
    line: int
    text: str

    @property
    def prose(self) -> str:
        """The text without code spans and targets of links."""
        return "" if self.kind in ("code", "output") else LINK.sub("]", SPAN.sub("`", self.text))

    @property
    def cells(self) -> list[str]:
        return re.split(r"(?<!\\)\|", self.text.strip()[1:-1])


@dataclass
class Section:
    level: int
    title: str
    line: int
    blocks: list[Block] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """The content without line breaks inside paragraphs and without outputs, in eight digits."""
        texts = [b.text if b.kind == "code" else " ".join(b.text.split()) for b in self.blocks if b.kind != "output"]
        return hashlib.sha256("\n".join([self.title, *texts]).encode()).hexdigest()[:8]


@dataclass
class Page:
    """A page of a repository in ``root``."""

    root: Path
    path: str

    def __post_init__(self):
        text = (self.root / self.path).read_text("utf-8")
        self.sections = list(sections(text)) if self.path.endswith(".md") else notebook_sections(text)

    def anchors(self) -> list[str]:
        return [re.sub(r"[^\w\- ]", "", s.title.lower()).replace(" ", "-") for s in self.sections]

    def target(self, link: str) -> tuple[str, str]:
        """Return a link's path in the repository and its anchor; a link to elsewhere is a path."""
        path, _, anchor = link.partition("#")
        if ":" in path:  # elsewhere; other sites have pages in both languages too
            return re.sub(r"/(?:en|zh|zh-CN)(?=/|$)", "", link), ""
        return posixpath.normpath(posixpath.join(posixpath.dirname(self.path), path)) if path else self.path, anchor


def sections(text: str) -> Iterator[Section]:
    """Yield the sections of a page; what precedes the first heading is dropped."""
    section = None
    lines = iter(enumerate(text.splitlines(), 1))
    paragraph = None
    for number, line in lines:
        heading = HEADING.fullmatch(line)
        if heading:
            if section:
                yield section
            section = Section(len(heading[1]), heading[2], number)
        if heading or not line.strip() or section is None:
            paragraph = None
            continue
        if FENCE.match(line):
            code = [line]
            while not FENCE.match(line := next(lines)[1]):
                code.append(line)
            section.blocks.append(Block("output" if code[0] == OUTPUT else "code", number, "\n".join(code)))
            paragraph = None
            continue
        kind = kind_of(line)
        if kind == "text" and paragraph:
            paragraph.text += "\n" + line
            continue
        paragraph = Block(kind, number, line)
        section.blocks.append(paragraph)
        if kind in ("row", "image"):
            paragraph = None
    if section:
        yield section


def notebook_sections(text: str) -> list[Section]:
    """Return the sections of a notebook; the lines are the numbers of its cells, from 1."""
    lines, cells = [], [0]
    for number, cell in enumerate(json.loads(text)["cells"], 1):
        source = "".join(cell["source"]).splitlines()
        if cell["cell_type"] == "code":
            output = json.dumps(cell["outputs"], ensure_ascii=False, sort_keys=True)
            source = ["```", *source, "```", OUTPUT, output, "```"]
        lines += [*source, ""]
        cells += [number] * (len(source) + 1)
    found = list(sections("\n".join(lines)))
    for place in (*found, *(block for section in found for block in section.blocks)):
        place.line = cells[place.line]
    return found


def kind_of(line: str) -> str:
    if line.startswith("|"):
        return "row"
    if line.startswith("!["):
        return "image"
    return "item" if ITEM.match(line) else "text"
