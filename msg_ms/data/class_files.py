"""Class names and the files that list them; one reader for ``DATA.CLASS_INDEX`` and ``--classes``."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError, nearest, shorten

SHAPES = 'one class per line, or JSON like {"0": ["n01440764", "tench"]} or ["n01440764", ...]'


@dataclass(frozen=True)
class ClassName:
    """Folder and readable name of a class.

    Attributes:
        folder: Name of the class folder; for ImageNet the WordNet synset id.
        name: Readable name, or several separated by commas.
    """

    folder: str
    name: str

    @property
    def short(self) -> str:
        """First of several names."""
        return self.name.split(",")[0]


def read_text(path: Path) -> str:
    """Read a UTF-8 text file, with or without a byte order mark.

    Raises:
        UserError: The file cannot be read or decoded.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"can't read {path}: {getattr(error, 'strerror', None) or error}") from None


def composed(name: str) -> str:
    """Return a name in Unicode's composed form (NFC): file systems differ in how they store accents."""
    return unicodedata.normalize("NFC", name)


def read_class_file(path: Path) -> list[ClassName]:
    """Read classes from a text or JSON file, in the order of their labels.

    A text file has one class per line: a folder, or a folder and a readable name separated by a tab. Names may contain
    blanks. Empty lines and lines that start with # are ignored. A JSON file holds an object from labels to
    names, or a list; a class is a name, or a list of a folder and a readable name.

    Raises:
        UserError: The file can't be read, or has another form.
    """
    text = read_text(path)
    classes = _from_json(path, text) if path.suffix.lower() == ".json" else class_lines(text)
    if not classes:
        raise UserError(f"{path}: expected {SHAPES}; there are no classes")
    return classes


def class_lines(text: str) -> list[ClassName]:
    """Return the classes of a text: one per line, see ``read_class_file``."""
    lines = [line.strip() for line in text.split("\n")]  # splitlines() also splits at rare characters inside names
    parts = [line.partition("\t") for line in lines if line and not line.startswith("#")]
    return [_class_name(folder, name) for folder, _, name in parts]


def _from_json(path: Path, text: str) -> list[ClassName]:
    try:
        content = json.loads(text)
        rows = [content[str(i)] for i in range(len(content))] if isinstance(content, dict) else content
        if not isinstance(rows, list):
            raise TypeError
        pairs = [(*row, "")[:2] if isinstance(row, list) else (row, "") for row in rows]
        if not all(isinstance(value, (str, int)) for pair in pairs for value in pair):
            raise TypeError
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        raise UserError(f"{path}: expected {SHAPES}") from None
    return [_class_name(str(folder), str(name)) for folder, name in pairs]


def _class_name(folder: str, name: str) -> ClassName:
    folder = composed(folder.strip())
    return ClassName(folder, name.strip() or folder)


def visible(name: str) -> str:
    """Return a name, with escapes behind it if characters look like others or are invisible."""
    plain = name.isascii() and name.isprintable() and name == " ".join(name.split())
    return name if plain else f"{name.strip()} ({name!a})"


def check_same_names(names: Sequence[str], folders: Sequence[str], which: str) -> None:
    """Raise UserError, which starts with ``which``, unless both lists hold the same names."""
    different = sorted(set(names) ^ set(folders))
    if different:
        shown = shorten([visible(name) for name in different])
        raise UserError(f"{which} differ: {shown}{_suggestion(different[0], names, folders)}")


def _suggestion(name: str, names: Sequence[str], folders: Iterable[str]) -> str:
    if any(line.split(" ")[0] in set(folders) - set(names) for line in names if " " in line):
        return "; separate a folder and its readable name by a tab"
    return nearest(name, [other for other in folders if other != name])


def number_order_hint(classes: Sequence[str]) -> list[str]:
    """Return a line if numbers in the class names are not in numerical order."""
    if list(classes) == sorted(classes, key=_natural_key):
        return []
    return [
        f"class folders are sorted as text ({shorten(classes, 4)}), as in torchvision; "
        "DATA.CLASS_INDEX sets another order"
    ]


def _natural_key(name: str) -> list[str | int]:
    """Return a sorting key that compares runs of digits as numbers, as timm does."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split("([0-9]+)", name))]
