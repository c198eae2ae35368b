"""Find words of the private vocabulary in Markdown, docstrings, comments and messages.

Run it alone on some files: python tests/docs/test_language.py [PATH...]. Code spans and code blocks are exempt.
"""

from __future__ import annotations

import ast
import io
import os
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHECKED = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs", "msg_ms", "tools", "train.py", "eval.py"]
SUFFIXES = {".md", ".py", ".h", ".cc", ".sh"}

# Pattern and replacement. A space in a pattern also matches a line break.
BANNED = [
    (r"anew", "again"),
    (r"spared", "excluded"),
    (r"told|tells?|telling", "report, print, show, specify"),
    (r"gives", "returns, produces"),
    (r"takes", "accepts, requires"),
    (r"lies", "is"),
    (r"stands? for", "represents, replaces"),
    (r"(?:goes|go|going|went|gone) on", "continue, resume"),
    (r"(?:begins?|began) again", "restart"),
    (r"left aside", "ignored"),
    (r"(?:is|are) no (?:folders?|files?|director(?:y|ies)|numbers?|images?)", "is not a ..."),
    (r"what(?:ever)?(?:'s)?", "a noun"),
    (r"pictures?", "image"),
    (r"mend(?:s|ed|ing)?", "fix"),
    (r"(?:lay|lays|laid|laying) out", "pack, arrange"),
    (r"message tokens?|messengers?", "MSG token"),
    (r"(?:an|one|two|each|every|per|last|next|first|same|skipped|between|of|\d+) updates?", "step"),
    (r"rates?", "learning rate, lr"),
]
# Ordinary English, removed before the search.
ALLOWED = [
    r"takes (?:about|around|up to|at most|at least|less|more|most|as|longer?|over|seconds|minutes|hours|place|\d)",
    r"1 - rate",
    r"(?:learning|peak|drop|drop-?path|dropout|depth|error|decay|sampling|transfer|hit|data|frame|clock) rates?",
    r"there (?:is|are) no",
    r"what(?:'s)? new",
    r"(?<![\w.])what(?=[^.?!:;]*\?)",  # a question
]


def any_of(patterns: list[str]) -> re.Pattern:
    # Comment signs may stand between the words of a phrase.
    joined = "|".join(f"(?:{pattern})" for pattern in patterns).replace(" ", r"[\s*]+")
    return re.compile(rf"(?<![\w-])(?:{joined})(?![\w-])", re.IGNORECASE)


SEARCHES = [(any_of([pattern]), better) for pattern, better in BANNED]
EXEMPT = any_of(ALLOWED)
CODE = re.compile(r"^ *(`{3,})[^\n]*\n.*?^ *\1 *$|(`+)[^`]+?\2|\]\([^)\s]*\)|<[^>\n]+>|https?://\S+", re.M | re.S)


def python_texts(source: str) -> Iterator[tuple[int, str]]:
    """Yield (first line, text) of each docstring, message and block of comments."""
    for node in ast.walk(ast.parse(source)):
        # A key or a name has no space.
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value
    comments = {
        token.start[0]: token.string.lstrip("#")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    yield from joined(comments)


def joined(lines: dict[int, str]) -> Iterator[tuple[int, str]]:
    """Yield (first line, text) of each run of adjacent lines."""
    block: list[str] = []
    first = 0
    for number, text in lines.items():
        if block and number != first + len(block):
            yield first, "\n".join(block)
            block = []
        if not block:
            first = number
        block.append(text)
    if block:
        yield first, "\n".join(block)


def texts(file: Path) -> Iterator[tuple[int, str]]:
    source = file.read_text(encoding="utf-8")
    if file.suffix == ".md":
        yield 1, source
    elif file.suffix == ".py":
        yield from python_texts(source)
    else:
        lines = enumerate(source.splitlines(), 1)
        yield from joined({n: found[1] for n, line in lines if (found := re.search(r"(?:^|\s)(?://|#)\s(.*)", line))})


def blank(found: re.Match) -> str:
    return re.sub(r"[^\n]", "_", found[0])


def problems(file: Path) -> list[str]:
    """Return ``file:line: word (replacement)`` for each banned word of a file."""
    found = []
    for first, text in texts(file):
        prose = EXEMPT.sub(blank, CODE.sub(blank, text))
        for pattern, better in SEARCHES:
            for match in pattern.finditer(prose):
                word = " ".join(match[0].split())
                found.append((first + prose.count("\n", 0, match.start()), f"{word} ({better})"))
    return [f"{os.path.relpath(file)}:{line}: {word}" for line, word in sorted(found)]


def files(paths: list[Path]) -> list[Path]:
    found = []
    for path in paths:
        found += sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES) if path.is_dir() else [path]
    return found


@pytest.mark.parametrize("path", CHECKED)
def test_plain_english(path):
    found = [problem for file in files([ROOT / path]) for problem in problems(file)]
    assert not found, "\n" + "\n".join(found)


if __name__ == "__main__":
    found = [
        problem
        for file in files([Path(path) for path in sys.argv[1:]] or [ROOT / path for path in CHECKED])
        for problem in problems(file)
    ]
    print(*found, f"{len(found)} words", sep="\n")
    sys.exit(bool(found))
