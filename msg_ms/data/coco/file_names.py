"""The images of an annotation file and the files of a folder: every name is opened as the file has it, or explained."""

from __future__ import annotations

import functools
import os
import posixpath
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..images.class_files import composed
from ..images.entries import entries_of, file_sizes, is_file, is_folder, paths_by_composed_name, stored_name
from ..images.folder import IMAGE_SUFFIXES
from .findings import Findings

_MOST_EXAMINED = 500  # missing files; a network's file system needs milliseconds for each
_ABSOLUTE = re.compile(r"[/~]|[A-Za-z]:[\\/]|\\\\|[a-z]+://")


def match_files(names: Sequence[str], folder: Path, found: Findings) -> list[str]:
    """Return the path of each image below the folder, and note the images that can't be opened.

    A name may begin with ``./`` and may store accents in another way than the disk. Any suffix is right.

    Args:
        names: The file names of the images.
        folder: The folder of the images.
        found: Receives errors, and a warning about images that the annotation file does not list.
    """
    disk = _Folder(folder)
    paths = [disk.find(name) for name in names]
    missing = [name for name, path in zip(names, paths, strict=True) if not path]
    examined = {name: disk.reason(name) for name in missing[:_MOST_EXAMINED]}
    for reason in dict.fromkeys(filter(None, examined.values())):
        cases = [disk.shown(name, reason) for name, own in examined.items() if own == reason]
        found.error(f"file names that {reason}", cases, _REMEDIES[reason].format(folder=folder))
    cases = [name for name in missing if not examined.get(name)]
    found.error(
        f"{len(cases)} images are not in {folder}", cases, "copy them there or remove them from the annotation file"
    )
    opened = [path for path in paths if path]
    twice = [path for path, count in Counter(opened).items() if count > 1]
    found.error("file names that appear twice", twice, "list each image once")
    sizes = file_sizes(str(folder), opened)
    empty = [path for path, size in zip(opened, sizes, strict=True) if not size]
    found.error("empty files", empty, "remove or download them again")
    extra = sorted(disk.images.difference(opened))
    found.warn(f"{len(extra)} files of {folder} are not in the file and are ignored", extra)
    return paths


_WINDOWS, _OUTSIDE = "have Windows separators", "are not below the folder of the images"
_PATHS, _CASE = "are absolute paths or addresses", "have other upper or lower case letters than the files"
_FOLDERS, _SUFFIX = "have folders that do not exist here", "have another suffix than the files"
_DEEPER = "are one folder deeper"
_LINKS, _IRREGULAR = "are links to missing files", "are folders or devices, not files"
_REMEDIES = {
    _WINDOWS: "write / for \\, and paths relative to {folder}",
    _OUTSIDE: "write paths relative to {folder}",
    _PATHS: "write paths relative to {folder}",
    _CASE: "correct the names",
    _FOLDERS: "write paths relative to {folder}",
    _SUFFIX: "correct the names",
    _DEEPER: "move the files of {folder}/{folder.name} to {folder}",
    _LINKS: "remove or repair them",
    _IRREGULAR: "remove or rename them",
}


class _Folder:
    """The entries of a folder of images."""

    def __init__(self, folder: Path):
        self.folder = folder
        entries = entries_of(folder)
        self.files = {entry.name for entry in entries if is_file(entry)}
        self.images = {
            entry.name
            for entry in entries
            if entry.name.lower().endswith(IMAGE_SUFFIXES) and entry.name[0] != "." and not is_folder(entry)
        }

    def find(self, name: str) -> str:
        """Return the path of a file below the folder; empty if there is none."""
        if name in self.files:
            return name
        if _is_outside(name):
            return ""
        path = stored_name(posixpath.normpath(name))
        if path in self.files or ("/" in path and os.path.isfile(f"{self.folder}/{path}")):  # noqa: PTH113 (speed)
            return path
        return "" if name.isascii() else self._composed.get(composed(posixpath.normpath(name)), "")

    @functools.cached_property
    def _composed(self) -> dict[str, str]:
        return paths_by_composed_name(self.folder)

    @functools.cached_property
    def _folded(self) -> dict[str, str]:
        return {path.casefold(): path for path in self.files}

    @functools.cached_property
    def _stems(self) -> dict[str, str]:
        return {posixpath.splitext(path)[0]: path for path in self.files}

    def reason(self, name: str) -> str:
        """Return why a file is not found, to follow "file names that"; empty if it is just missing."""
        if _ABSOLUTE.match(name):
            return _PATHS
        if "\\" in name:
            return _WINDOWS
        if _is_outside(name):
            return _OUTSIDE
        path = f"{self.folder}/{name}"
        if os.path.islink(path) and not os.path.exists(path):  # noqa: PTH110, PTH114 (names need not be paths)
            return _LINKS
        if os.path.exists(path):  # noqa: PTH110
            return _IRREGULAR
        if os.path.isfile(f"{self.folder}/{self.folder.name}/{name}"):  # noqa: PTH113
            return _DEEPER
        similar = self._similar(name)
        if not similar:
            return ""
        return _CASE if similar.casefold() == name.casefold() else _FOLDERS if "/" in name else _SUFFIX

    def shown(self, name: str, reason: str) -> str:
        """Return a name with the file that it may mean."""
        return f"{name} (the file is {self._similar(name)})" if reason in (_CASE, _FOLDERS, _SUFFIX) else name

    def _similar(self, name: str) -> str:
        """Return the file that a name may mean: in other letters, without its folders, with another suffix."""
        base = posixpath.basename(name)
        similar = self._folded.get(name.casefold(), "") or (base if base in self.files else "")
        return similar or ("" if "/" in name else self._stems.get(posixpath.splitext(name)[0], ""))


def _is_outside(name: str) -> bool:
    return name.startswith("/") or ".." in name.split("/") or "\0" in name
