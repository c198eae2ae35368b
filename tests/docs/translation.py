"""Compare each page with its Chinese translation: python tests/docs/translation.py [PAGE...].

The command prints all differences. With pages (docs/training.md, or docs/zh/training.md), it records their English
sections as translated, which it does only if no difference is left. Run it after you have brought the Chinese page up
to date: ``translated.txt`` holds a digest of every English section, and a section that has changed since is reported.

A page is a list of sections, and a section a list of blocks: paragraphs, list items, rows of tables, code and images.
The pages have equal sections and equal blocks in the same order. In equal blocks these are equal: code, code spans,
numbers, targets of links and empty cells of tables. ``glossary.yaml`` has the terms and their translations. The command
copies the code and the outputs of a notebook to its translation, with paths from there.
"""

from __future__ import annotations

import calendar
import json
import os
import re
import sys
from collections import Counter
from functools import cache
from itertools import zip_longest
from pathlib import Path

import yaml
from sections import LINK, SPAN, Block, Page

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
# Pages outside docs/ and their translations.
OTHERS = {"README.md": "README.zh-CN.md", "CONTRIBUTING.md": "docs/zh/CONTRIBUTING.md"}
NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?")
LARGE = {"thousand": 1e3, "million": 1e6, "billion": 1e9, "万": 1e4, "亿": 1e8}


def pairs(root: Path = ROOT) -> list[tuple[str, str]]:
    """Return (English page, Chinese page) of all pages that have or need a translation."""
    folders = [root / "docs", root / "docs" / "zh"]
    names = {
        page.relative_to(folder).as_posix()
        for folder in folders
        for pattern in ("*.md", "notebooks/*.ipynb")
        for page in folder.glob(pattern)
    }
    found = [(english, chinese) for english, chinese in OTHERS.items() if (root / english).exists()]
    done = {Path(chinese).name for _, chinese in found}
    return found + [(f"docs/{name}", f"docs/zh/{name}") for name in sorted(names - done)]


@cache
def glossary() -> tuple[list[tuple[re.Pattern, list[str]]], dict[str, str]]:
    """Return the terms with their translations, and the words that are not used with their replacements."""
    content = yaml.safe_load((HERE / "glossary.yaml").read_text("utf-8"))
    terms = [
        (re.compile(rf"(?<![\w.-])(?:{term})(?:s|es)?(?![\w-])", re.IGNORECASE), words)
        for term, words in content["terms"].items()
    ]
    return terms, content["unused"]


def spans(block: Block) -> list[str]:
    return [" ".join(span.split()) for span in SPAN.findall(block.text)]


def numbers(text: str) -> Counter:
    """Return the values of the numbers; names of months and words for thousands and more count as well."""
    text = re.sub(rf"\b({'|'.join(list(calendar.month_name)[1:])})\b(?= \d{{4}})", month, text)
    found: Counter = Counter()
    for match in NUMBER.finditer(text):
        value = float(match[0].replace(",", ""))
        scale = re.match(r" ?(thousand|million|billion|万|亿)", text[match.end() :])
        found[value * (LARGE[scale[1]] if scale else 1)] += 1
    return found


def month(name: re.Match) -> str:
    return str(list(calendar.month_name).index(name[1]))


def anchors_of(root: Path, path: str) -> list[str]:
    return _anchors(root, path, (root / path).stat().st_mtime_ns)


@cache
def _anchors(root: Path, path: str, changed: int) -> list[str]:
    return Page(root, path).anchors()


def code_from_docs(text: str) -> str:
    """Return the code of a Chinese notebook with paths from the folder of the English one."""
    return text.replace("../../../", "../../")


class Comparison:
    """The differences between a page and its translation; each line names both places."""

    def __init__(self, root: Path, english: str, chinese: str):
        self.root = root
        self.translations = dict(pairs(root))
        self.problems: list[str] = []
        self.english, self.chinese = english, chinese
        missing = [path for path in (english, chinese) if not (root / path).exists()]
        if missing:
            self.problems.append(f"{english}, {chinese}: {missing[0]} is missing")
            return
        self.pages = Page(root, english), Page(root, chinese)
        self.compare()

    def report(self, lines: tuple[int, int], text: str) -> None:
        self.problems.append(f"{self.english}:{lines[0]}, {self.chinese}:{lines[1]}: {text}")

    def compare(self) -> None:
        english, chinese = (page.sections for page in self.pages)
        for one, other in zip_longest(english, chinese):
            if one is None or other is None or one.level != other.level:
                titles = " and ".join(repr(s.title) if s else "nothing" for s in (one, other))
                self.report((one.line if one else 0, other.line if other else 0), f"headings differ: {titles}")
                return
            self.compare_blocks(Block("heading", one.line, one.title), Block("heading", other.line, other.title))
            for left, right in zip_longest(one.blocks, other.blocks):
                if left is None or right is None or left.kind != right.kind:
                    kinds = " and ".join(f"{b.kind} {b.text[:40]!r}" if b else "nothing" for b in (left, right))
                    place = (left.line if left else one.line, right.line if right else other.line)
                    self.report(place, f"blocks differ: {kinds}")
                    break
                self.compare_blocks(left, right)

    def compare_blocks(self, left: Block, right: Block) -> None:
        if left.kind in ("code", "output"):
            text = code_from_docs(right.text) if self.chinese.endswith(".ipynb") else right.text
            lines = zip_longest(left.text.splitlines(), text.splitlines(), fillvalue="")
            if unequal := [pair for pair in lines if pair[0] != pair[1]]:
                self.report((left.line, right.line), f"{left.kind} differs: {' and '.join(map(repr, unequal[0]))}")
            return
        parts = [(left, right)]
        if left.kind == "row":
            cells = left.cells, right.cells
            if len(cells[0]) != len(cells[1]):
                self.differ(left, right, "columns", [len(cells[0])], [len(cells[1])])
                return
            parts = [(Block("cell", left.line, a), Block("cell", right.line, b)) for a, b in zip(*cells, strict=True)]
        for one, other in parts:
            self.differ(one, other, "code spans", spans(one), spans(other))
            self.differ(one, other, "numbers", numbers(one.prose).elements(), numbers(other.prose).elements())
            self.differ(one, other, "links", self.links(one), self.links(other, chinese=True))
            if bool(one.text.strip()) != bool(other.text.strip()):
                self.differ(one, other, "cells", [one.text.strip()], [other.text.strip()])
        self.compare_terms(left, right)

    def differ(self, left: Block, right: Block, name: str, expected, found) -> None:
        expected, found = Counter(expected), Counter(found)
        if expected != found:
            text = f"{list((expected - found).elements())} and {list((found - expected).elements())}"
            self.report((left.line, right.line), f"{name} differ: {text}")

    def compare_terms(self, left: Block, right: Block) -> None:
        terms, unused = glossary()
        for pattern, words in terms:
            if (found := pattern.search(left.prose)) and not any(w.lower() in right.text.lower() for w in words):
                self.report(
                    (left.line, right.line), f"terms differ: {found[0]!r} is translated as {' or '.join(words)}"
                )
        for word, better in unused.items():
            if match := re.search(word, right.prose):
                self.report((left.line, right.line), f"terms differ: not {match[0]!r} but {better!r}")

    def links(self, block: Block, chinese: bool = False) -> list[str]:
        """Return the targets of a block's links, as English pages and numbers of their sections."""
        page = self.pages[chinese]
        english = {translation: original for original, translation in self.translations.items()}
        found = []
        for groups in LINK.findall(block.text):
            path, anchor = page.target(next(filter(None, groups)))
            if anchor:
                anchors = page.anchors() if path == page.path else anchors_of(self.root, path)
                anchor = f"#{anchors.index(anchor)}" if anchor in anchors else f"#{anchor}, which is missing"
            # Each page links to the other language from the same place.
            if chinese:
                path = english.get(path, self.translations.get(path, path))
            found.append(path + anchor)
        return found


def recorded(file: Path) -> dict[str, str]:
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    return dict(reversed(line.split(" ", 1)) for line in lines)


def entries(root: Path, english: str) -> dict[str, tuple[int, str]]:
    """Return (number, digest) of each section of a page by its address."""
    page = Page(root, english)
    return {
        f"{english}#{anchor}": (number, section.digest)
        for number, (anchor, section) in enumerate(zip(page.anchors(), page.sections, strict=True))
    }


def changed(root: Path, english: str, chinese: str, file: Path) -> list[str]:
    """Return a line for each English section that is not the one which was translated."""
    if not all((root / path).exists() for path in (english, chinese)):
        return []
    known = recorded(file)
    places = Page(root, english).sections, Page(root, chinese).sections
    found = []
    for address, (number, digest) in entries(root, english).items():
        if known.get(address) != digest:
            one, other = (page[number] if number < len(page) else page[-1] for page in places)
            found.append(
                f"{english}:{one.line} {one.title!r} has changed: bring {chinese}:{other.line} {other.title!r} up to "
                f"date, then run python tests/docs/translation.py {english}"
            )
    present = entries(root, english)
    gone = [a for a in known if a.startswith(f"{english}#") and a not in present]
    return found + [f"{address} is gone: run python tests/docs/translation.py {english}" for address in gone]


def record(root: Path, english: str, file: Path) -> None:
    """Store the digests of a page's sections."""
    known = {a: d for a, d in recorded(file).items() if not a.startswith(f"{english}#")}
    known |= {address: digest for address, (_, digest) in entries(root, english).items()}
    file.write_text("".join(f"{known[address]} {address}\n" for address in sorted(known)), encoding="utf-8")


def copy_code(english: Path, chinese: Path) -> None:
    """Copy the code and outputs of a notebook to its translation if both have the same kinds of cells."""
    notebooks = [json.loads(path.read_text("utf-8")) for path in (english, chinese)]
    originals, cells = (notebook["cells"] for notebook in notebooks)
    if [c["cell_type"] for c in originals] != [c["cell_type"] for c in cells]:
        return
    for number, cell in enumerate(originals):
        if cell["cell_type"] == "code":
            source = [line.replace("../../", "../../../") for line in cell["source"]]
            cells[number] = {**cell, "source": source}
    text = json.dumps({**notebooks[0], "cells": cells}, ensure_ascii=False, indent=1)
    chinese.write_text(f"{text}\n", encoding="utf-8")


TRANSLATED = HERE / "translated.txt"


def main() -> int:
    wanted = [Path(os.path.relpath(path, ROOT)).as_posix() for path in sys.argv[1:]]
    status = 0
    for english, chinese in pairs():
        if wanted and not {english, chinese} & set(wanted):
            continue
        if wanted and english.endswith(".ipynb") and (ROOT / chinese).exists():
            copy_code(ROOT / english, ROOT / chinese)
        problems = Comparison(ROOT, english, chinese).problems
        outdated = changed(ROOT, english, chinese, TRANSLATED)
        print(*problems, *outdated, sep="\n", end="\n" if problems or outdated else "")
        if wanted and not problems:
            record(ROOT, english, TRANSLATED)
            print(f"recorded {english} as translated")
        status |= bool(problems or (outdated and not wanted))
    return status


if __name__ == "__main__":
    sys.exit(main())
