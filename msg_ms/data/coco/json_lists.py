"""Read a large JSON file element by element, so that its content never fills memory as Python objects.

ijson needs more CPU time for the events of COCO's file than this reader for its elements, accepts a key twice, and
refuses NaN in entries that nobody reads.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TextIO

from ...errors import UserError, printable
from ...files import head_of_file
from ..images.tar_members import compression_of

CHUNK = 2**22  # characters that are read at once
NOT_ANNOTATIONS = "it must be a COCO annotation file such as instances_val2017.json, not results or captions"
_BLANKS = re.compile(r"[ \t\n\r]*")


def read_lists(path: Path, receivers: Mapping[str, Callable[[Any], None]]) -> set[str]:
    """Read a JSON object and pass on the elements of some of its lists, one by one and in order.

    Args:
        path: The file.
        receivers: For each key whose value must be a list, the function that receives the elements.

    Returns:
        The object's keys.

    Raises:
        UserError: The file can't be read, is not JSON, is not an object, or a value in ``receivers`` is not a list.
    """
    try:
        with path.open(encoding="utf-8-sig") as stream:
            return _Reader(path, stream).read(receivers)
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({_encoding(path) or error.reason}); write the file again") from None
    except RecursionError:
        raise UserError(f"{path}: not an annotation file: values are nested too deeply") from None


def _encoding(path: Path) -> str:
    """Return which other encoding a file has, in words; empty if it is not known."""
    head = (head_of_file(path, 16) or b"").ljust(4)
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "it is UTF-16"
    compression = compression_of(head)
    return f"it is compressed with {compression}" if compression else ""


class _Repeated(ValueError):
    """A key that an object has twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; raise _Repeated if it has a key twice, as readers differ in which value counts."""
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise _Repeated(Counter(key for key, _ in pairs).most_common(1)[0][0])
    return entries


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)


class _Reader:
    """A window of a text that moves over its values."""

    def __init__(self, path: Path, stream: TextIO):
        self.path, self.stream, self.ended = path, stream, False
        self.text, self.position = "", 0
        self.line, self.column = 1, 1  # of the window's first character

    def read(self, receivers: Mapping[str, Callable[[Any], None]]) -> set[str]:
        keys: set[str] = set()
        if self.next_character() != "{":
            self._fail_with("expected an object with images, annotations and categories")
        self.position += 1
        while self.separator("}", first=not keys):
            if self.next_character() != '"':
                self.fail("expected a key in double quotes")
            key = self.value()
            if key in keys:
                self._fail_twice(key)
            keys.add(key)
            if self.next_character() != ":":
                self.fail("expected ':'")
            self.position += 1
            if key in receivers:
                self.elements(key, receivers[key])
            else:
                self.value()
        if self.next_character():
            self.fail("expected the end of the file")
        return keys

    def elements(self, key: str, receive: Callable[[Any], None]) -> None:
        if self.next_character() != "[":
            self._fail_with(f"{key} must be a list")
        self.position += 1
        first = True
        while self.separator("]", first):
            first = False
            receive(self.value())

    def separator(self, end: str, first: bool) -> bool:
        """Move over a comma, or over the end of a list or object; return whether a value follows."""
        character = self.next_character()
        if character == end:
            self.position += 1
            return False
        if not first:
            if character != ",":
                self.fail(f"expected ',' or '{end}'")
            self.position += 1
        return True

    def next_character(self) -> str:
        """Move to the next character that is not blank, and return it; empty at the end of the file."""
        while True:
            blanks = _BLANKS.match(self.text, self.position)
            assert blanks is not None  # none at all match, too
            self.position = blanks.end()
            if self.position < len(self.text) or self.ended:
                return self.text[self.position : self.position + 1]
            self.extend()

    def value(self) -> Any:
        self.next_character()
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.position)
            except json.JSONDecodeError as error:
                if self.ended:
                    self.position = error.pos
                    self.fail(error.msg[:1].lower() + error.msg[1:])
            except _Repeated as error:
                self._fail_twice(str(error))
            except ValueError:  # Python's limit for the digits of an integer
                self.fail("a number has too many digits")
            else:
                # Near the window's end a number may be a part of a longer one.
                if self.ended or (end < len(self.text) and self.text[end] not in ".eE"):
                    self.position = end
                    return value
            self.extend()

    def extend(self) -> None:
        """Drop the text that has been read, and read on."""
        passed = self.text[: self.position]
        self.line, self.column = self._place(passed)
        rest = self.text[self.position :]
        # A value that is longer than the window doubles it.
        more = self.stream.read(max(CHUNK, len(rest)))
        self.ended = not more
        self.text, self.position = rest + more, 0

    def _place(self, passed: str) -> tuple[int, int]:
        lines = passed.count("\n")
        return self.line + lines, len(passed) - passed.rfind("\n") if lines else self.column + len(passed)

    def fail(self, reason: str) -> NoReturn:
        line, column = self._place(self.text[: self.position])
        at_end = self.ended and not self.text[self.position :].strip()
        hint = "the file is cut off; copy it again" if at_end else "correct it or copy the file again"
        raise UserError(f"{self.path}: not valid JSON at line {line}, column {column}: {reason}; {hint}")

    def _fail_twice(self, key: str) -> NoReturn:
        line, _ = self._place(self.text[: self.position])
        shown = printable(key, 60)
        raise UserError(f"{self.path}: the key {shown!r} appears twice in an object, at or after line {line}; keep one")

    def _fail_with(self, reason: str) -> NoReturn:
        if not self.next_character():
            self.fail(reason)
        raise UserError(f"{self.path}: {reason}; {NOT_ANNOTATIONS}")
