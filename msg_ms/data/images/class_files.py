"""Class names and the files that list them; one reader for ``DATA.CLASS_INDEX`` and ``--classes``."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import UserError, nearest, shorten

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


def read_index(class_index: str | Path, folders: Sequence[str] | None = None, root: Path | None = None) -> list[str]:
    """Return the class folders in the order of ``DATA.CLASS_INDEX``.

    Args:
        class_index: The file.
        folders: Composed names that it must hold; not checked if there are none.
        root: Where the folders are, for the error.

    Raises:
        UserError: The file can't be read, lists a class twice, or does not hold the folders.
    """
    names = [row.folder for row in read_class_file(Path(class_index))]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(f"{class_index} lists a class twice: {shorten(twice)}")
    if folders is not None:
        check_same_names(names, folders, f"{class_index} and the class folders of {root}")
    return names


def order_classes(folders: Iterable[str], class_index: str | Path | None, root: Path) -> dict[str, str]:
    """Return the names of class folders by their composed names, in the order of their labels.

    Args:
        folders: The names as they are stored.
        class_index: File with the order; by default classes are sorted by composed name.
        root: Where the folders are, for errors.

    Raises:
        UserError: Two names are equal in composed form, or ``class_index`` does not hold these classes.
    """
    folders = list(folders)
    stored = {composed(name): name for name in folders}
    if len(stored) < len(folders):
        twice = [ascii(name) for name in folders if name not in stored.values() or name != stored[composed(name)]]
        raise UserError(f"{root} has a class twice, with its accents stored in two ways: {shorten(twice)}; merge them")
    names = read_index(class_index, sorted(stored), root) if class_index else sorted(stored)
    return {name: stored[name] for name in names}


def order_warnings(folders: Mapping[str, str]) -> list[str]:
    """Return lines on class folders whose order by name may surprise, see ``order_classes``."""
    warnings = number_order_hint(list(folders))
    if list(folders.values()) != sorted(folders.values()):
        warnings.append("class folders are sorted by their names in composed Unicode (NFC), unlike in torchvision")
    return warnings


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
