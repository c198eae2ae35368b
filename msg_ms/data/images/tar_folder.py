"""Images in indexed tar files, in the order of the same images in class folders."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ...errors import UserError, shorten
from .class_files import order_classes, order_warnings, read_index
from .entries import entries_of
from .folder import ImageFolder, shared_labels
from .tar_files import COMMAND, TarFile, TarFileList
from .tar_index import TarIndex

COMPRESSED_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".tar.lz4")


def tar_names(names: Iterable[str]) -> list[str]:
    """Return the names of tar files, sorted."""
    return sorted(name for name in names if name.endswith(".tar") and not name.startswith("."))


def compressed_names(names: Iterable[str]) -> list[str]:
    """Return the names of compressed tar files, sorted."""
    return sorted(name for name in names if name.endswith(COMPRESSED_SUFFIXES) and not name.startswith("."))


def scan_tar_files(root: str | Path, class_index: str | Path | None = None) -> ImageFolder:
    """List the images of indexed tar files, in the order of the same images in class folders.

    Args:
        root: Folder with the tar files and their index.
        class_index: As in ``scan_folder``.

    Raises:
        UserError: The index can't be used, a tar file is missing, new or was changed since it was indexed, or
            ``class_index`` does not match.
    """
    root = Path(root)
    index = TarIndex.read(root)
    check_tars(root, index.tars)
    if index.labels:
        return _labelled(root, index, class_index)
    folders = order_classes(index.folders, class_index, root)
    index_labels = {folder: i for i, folder in enumerate(index.folders)}
    order = [index_labels[folder] for folder in folders.values()]
    counts = index.counts[order]
    labels = shared_labels(np.repeat(np.arange(len(order), dtype=np.int32), counts))
    names, ends, columns = index.names, index.ends, [index.numbers, index.offsets, index.sizes]
    if order != sorted(order):
        names, ends, rows = _move_classes(index, order)
        columns = [column[rows] for column in columns]
    warnings = [f"{root}: {line}" for line in index.ignored]
    if not class_index:
        warnings += order_warnings(folders)
    files = TarFileList(str(root), names, ends, index.tars, *columns)
    return ImageFolder(root, tuple(folders), files, labels, tuple(warnings))


def _labelled(root: Path, index: TarIndex, class_index: str | Path | None) -> ImageFolder:
    """Return images with WebDataset's labels; the lines of ``class_index`` are the names of the classes."""
    files = TarFileList(str(root), index.names, index.ends, index.tars, index.numbers, index.offsets, index.sizes)
    labels = shared_labels(np.repeat(np.arange(len(index.counts), dtype=np.int32), index.counts))
    warnings = tuple(f"{root}: {line}" for line in index.ignored)
    return ImageFolder(root, _names_of_labels(root, index, class_index), files, labels, warnings)


def _names_of_labels(root: Path, index: TarIndex, class_index: str | Path | None) -> tuple[str, ...]:
    """Return the names in ``class_index`` for the labels of an index; none without such a file."""
    names = tuple(read_index(class_index)) if class_index else ()
    if names and len(names) < len(index.folders):
        raise UserError(
            f"{class_index} lists {len(names)} classes, but the images in {root} have labels up to "
            f"{len(index.folders) - 1}; list the class of each label from 0"
        )
    return names


def tar_classes(root: str | Path, class_index: str | Path | None = None) -> tuple[str, ...]:
    """Return the names of the classes in indexed tar files, in the order of their labels; see ``scan_tar_files``.

    There are none if the tar files have labels alone.
    """
    index = TarIndex.read(Path(root))
    if index.labels:
        return _names_of_labels(Path(root), index, class_index)
    return tuple(order_classes(index.folders, class_index, Path(root)))


def check_tars(root: Path, tars: tuple[TarFile, ...]) -> None:
    """Raise UserError unless a folder holds exactly the tar files that were indexed."""
    present = set(tar_names(file_names(root)))
    missing = [tar.name for tar in tars if tar.name not in present]
    new = sorted(present - {tar.name for tar in tars})
    changed = [tar.name for tar in tars if tar.name in present and tar_status(root / tar.name) != tar]
    problems = [
        f"{shorten(names)} {words}"
        for names, words in (
            (missing, "missing"),
            (new, "not in the index"),
            (changed, "changed since the index was made (size or time of the last change)"),
        )
        if names
    ]
    if problems:
        raise UserError(
            f"{root}: {'; '.join(problems)}: restore the tar files (cp -p and rsync -t preserve their times), or make "
            f"the index again: {COMMAND} {root}"
        )


def file_names(root: Path) -> list[str]:
    """Return the names of a folder's entries, sorted; raise UserError if it can't be read."""
    return [entry.name for entry in entries_of(root)]


def tar_status(path: Path) -> TarFile:
    """Return the size and time of a tar file; raise UserError if it can't be read."""
    try:
        return TarFile.of(path.name, path.stat())
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror}") from None


def _move_classes(index: TarIndex, order: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the packed names, their ends and the rows of the index for another order of its classes."""
    last = np.cumsum(index.counts)
    first = last - index.counts
    begins = np.append(np.int64(0), index.ends + 1)  # of each name, and the end of all
    names, ends, rows, size = [], [], [], 0
    for label in order:
        begin, end = begins[first[label]], begins[last[label]]
        names.append(index.names[begin:end])
        ends.append(index.ends[first[label] : last[label]] + (size - begin))
        rows.append(np.arange(first[label], last[label]))
        size += end - begin
    return np.concatenate(names), np.concatenate(ends), np.concatenate(rows)
