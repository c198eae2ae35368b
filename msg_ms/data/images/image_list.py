"""Images and their classes from a text file (``DATA.VAL_LIST``)."""

from __future__ import annotations

import functools
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ...errors import UserError, shorten
from .class_files import composed, number_order_hint, read_text
from .entries import has_content, is_directory, paths_by_composed_name, stored_name
from .file_list import FileList
from .folder import ImageFolder
from .tar_index import INDEX


def scan_list(
    root: str | Path, list_file: str | Path, classes: Sequence[str] | None = None, num_classes: int = 0
) -> ImageFolder:
    """List the images that a text file names.

    A line is ``<file> <class>``, separated by a tab or by blanks. Both may contain blanks; a line that can then be
    split in two ways is refused. Files are relative to ``root``. The classes are class folders if all of them are, else
    labels.

    Args:
        root: Folder with the images.
        list_file: The text file.
        classes: Class folders in the order of their labels. Without them, numbers are labels, and other classes are
            sorted by name.
        num_classes: Number of classes of the model, for a list without ``classes``.

    Raises:
        UserError: A line cannot be parsed or has two meanings, or a file is missing, empty or listed twice.
    """
    root, list_file = Path(root), Path(list_file)
    if not is_directory(root):
        raise UserError(f"{root} is not a directory; it must hold the images of DATA.VAL_LIST={list_file}")
    if os.path.lexists(root / INDEX):
        raise UserError(f"{root} holds tar files, whose images have classes: leave out DATA.VAL_LIST={list_file}")
    reader = _Reader(root, list_file, classes)
    for number, line in enumerate(read_text(list_file).split("\n"), 1):
        if line.strip():
            reader.add(number, line.strip())
    if not reader.words:
        raise UserError(f"{list_file} lists no images")
    if reader.missing:
        windows = any("\\" in file for file in reader.missing)
        hint = "; write / for \\, and paths relative to that folder" if windows else ""
        raise UserError(f"{list_file} lists files that are missing or empty in {root}: {shorten(reader.missing)}{hint}")
    twice = [file for file, count in Counter(reader.files).items() if count > 1]
    if twice:
        raise UserError(f"{list_file} lists files twice: {shorten(twice)}")
    if classes is None:
        names, labels, warnings = _new_classes(reader.words, list_file, num_classes)
    else:
        names = tuple(classes)
        labels, warnings = _labels(reader.words, names, list_file)
    below = [file.removeprefix(f"{root}/") for file in reader.files]
    return ImageFolder(root, names, FileList.of(str(root), [below]), tuple(labels), tuple(warnings))


class _Reader:
    """Collects the files and the words for their classes."""

    def __init__(self, root: Path, list_file: Path, classes: Sequence[str] | None):
        self.root, self.list_file, self.classes = root, list_file, classes
        self.known = None if classes is None else {*classes, *map(str, range(len(classes)))}
        self.files: list[str] = []
        self.words: list[str] = []
        self.missing: list[str] = []

    def add(self, number: int, line: str) -> None:
        separators = list(re.finditer("[ \t]*\t[ \t]*" if "\t" in line else " +", line))
        splits = [(line[: at.start()], composed(line[at.end() :])) for at in separators]
        splits = [(file, word) for file, word in splits if self.known is None or word in self.known]
        if not splits:
            raise UserError(
                f"{self.list_file}, line {number}: {line!r}: expected a file name and a class{self._valid()}"
            )
        found = [(path, word) for path, word in ((self._find(file), word) for file, word in splits) if path]
        if len(found) > 1:
            raise UserError(
                f"{self.list_file}, line {number}: {line!r} can be split in {len(found)} ways; "
                "separate file name and class by a tab"
            )
        if not found:
            self.missing.append(splits[-1][0])
        path, word = found[0] if found else splits[-1]
        self.files.append(path)
        self.words.append(word)

    def _valid(self) -> str:
        return "" if self.classes is None else f", one of {self.classes[0]}, ... or 0 to {len(self.classes) - 1}"

    def _find(self, file: str) -> str:
        """Return the path of a file, or an empty string."""
        if "/./" in f"/{file}" or "//" in file:  # one file has one name, so that it is found twice
            file = os.path.normpath(file)
        path = os.path.join(self.root, stored_name(file))  # noqa: PTH118 (speed)
        if has_content(path):
            return path
        other = "" if file.isascii() else self._by_composed_name.get(composed(os.path.normpath(file)), "")
        path = os.path.join(self.root, other)  # noqa: PTH118 (speed)
        return path if other and has_content(path) else ""

    @functools.cached_property
    def _by_composed_name(self) -> dict[str, str]:
        return paths_by_composed_name(self.root)


def _labels(words: Sequence[str], classes: Sequence[str], list_file: Path) -> tuple[list[int], list[str]]:
    """Return the labels of words that are class folders or labels, and warnings."""
    names = {name: i for i, name in enumerate(classes)}
    numbers = {str(i): i for i in range(len(classes))}
    used = list(dict.fromkeys(words))
    either = [
        word for word in used if names.get(word, -1) != numbers.get(word, -1) and word in names and word in numbers
    ]
    are_names, are_numbers = all(word in names for word in used), all(word in numbers for word in used)
    if either and not are_names and not are_numbers:
        raise UserError(
            f"{list_file} mixes class folders and labels, and {shorten(either)} can be both; use class folders only"
        )
    warnings = []
    if either and are_numbers:
        read, other = ("names of class folders", "labels") if are_names else ("labels", "names of class folders")
        warnings = [f"{list_file}: numbers are read as {read}, not as {other}"]
    labels = names if are_names else numbers if are_numbers else {**numbers, **names}
    return [labels[word] for word in words], warnings


def _new_classes(
    words: Sequence[str], list_file: Path, num_classes: int
) -> tuple[tuple[str, ...], list[int], list[str]]:
    """Return classes, labels and warnings of a list for which no classes are known."""
    used = sorted(set(words))
    if all(re.fullmatch("[0-9]{1,9}", word) for word in used):
        labels = [int(word) for word in words]
        if max(labels) < num_classes:
            return (), labels, []
        if len(used) != num_classes:  # else they are the names of all class folders
            raise UserError(
                f"{list_file}: label {max(labels)} is not in 0 to {num_classes - 1} (MODEL.NUM_CLASSES={num_classes}); "
                "if the numbers are names of class folders, list those in DATA.CLASS_INDEX"
            )
    if len(used) != num_classes:
        raise UserError(
            f"{list_file} lists {len(used)} classes, but MODEL.NUM_CLASSES={num_classes}; "
            "list all class folders in DATA.CLASS_INDEX"
        )
    numbers = {name: i for i, name in enumerate(used)}
    return tuple(used), [numbers[word] for word in words], number_order_hint(used)
