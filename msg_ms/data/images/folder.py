"""Lists of image files with labels, in the same order on every machine.

Two layouts are supported: one folder per class, and a folder with a list of file names and classes.
"""

from __future__ import annotations

import contextlib
import functools
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...errors import UserError
from ..pixels import native
from .class_files import composed, order_classes, order_warnings
from .file_list import FileList
from .found import Found
from .image_folder import ImageFolder

# torchvision's, and GIF.
IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
_USUAL_SUFFIXES = (*IMAGE_SUFFIXES, ".JPEG", ".JPG", ".PNG")


class _Found(Found):
    """Entries of a folder beside its images, and the folders above it."""

    @functools.cached_property
    def above(self) -> set[tuple[int, int]]:
        """The root and the folders that contain it: a link to one of them is a loop."""
        root = Path(self.root).resolve()
        return {_identity(str(path)) for path in (root, *root.parents)}

    def name(self, entry: os.DirEntry) -> str:
        """Return an entry's path below the root."""
        return entry.path[len(self.root) + 1 :]


def class_folders(root: str | Path, class_index: str | Path | None = None) -> tuple[str, ...]:
    """Return the names of the class folders in ``root``, in the order of their labels.

    Arguments and errors are those of ``scan_folder``.
    """
    return tuple(_class_folders(Path(root), class_index))


def scan_folder(root: str | Path, class_index: str | Path | None = None) -> ImageFolder:
    """List a folder that has one sub-folder per class; images may be at any depth below it, as in torchvision.

    Hidden folders and files of other types are ignored and reported in ``warnings``.

    Args:
        root: Folder to list.
        class_index: File with the class folders in the order of their labels: see
            ``msg_ms.data.images.class_files.read_class_file``. By default classes are sorted by name.

    Raises:
        UserError: There are no class folders, a class has no images, a file is empty, a folder can't be read, or
            ``class_index`` does not match. The text names every such class and file.
    """
    root = Path(root)
    folders = _class_folders(root, class_index)
    entries = entries_of(root)
    found = _Found(
        str(root),
        others=[entry.name for entry in entries if not is_folder(entry)],
        hidden=[entry.name for entry in entries if is_folder(entry) and entry.name.startswith(".")],
    )
    without_images: list[str] = []
    labels: list[int] = []

    def groups() -> Iterator[list[str]]:
        """Yield the images of each class below the root."""
        for label, name in enumerate(folders):
            images, unusable = [], len(found.empty) + len(found.dangling)
            for folder, names in _folders_below(os.path.join(root, folders[name]), found):  # noqa: PTH118 (speed)
                below = folder[len(found.root) + 1 :]
                images += [f"{below}/{image}" for image in names]
            labels.extend([label] * len(images))
            if not images and unusable == len(found.empty) + len(found.dangling):
                without_images.append(name)
            yield images

    files = FileList.of(found.root, groups())
    found.raise_problems(without_images)
    warnings = [f"{root}: {line}" for line in found.ignored()]
    if not class_index:
        warnings += order_warnings(folders)
    return ImageFolder(root, tuple(folders), files, tuple(labels), tuple(warnings))


def _class_folders(root: Path, class_index: str | Path | None) -> dict[str, str]:
    """Return the names of the class folders on the disk by their composed names, in the order of their labels."""
    if not is_directory(root):
        raise UserError(f"{root} is not a directory; --data-path must hold train/ and val/ with one folder per class")
    on_disk = [entry.name for entry in entries_of(root) if is_folder(entry) and not entry.name.startswith(".")]
    if not on_disk:
        raise UserError(f"{root} has no class folders; --data-path must hold train/ and val/ with one folder per class")
    return order_classes(on_disk, class_index, root)


def _folders_below(top: str, found: _Found) -> Iterator[tuple[str, list[str]]]:
    """Yield a class folder and each folder below it with the names of its images, in torchvision's order."""
    listed: dict[str, list[str]] = {}
    seen: set[tuple[int, int]] = set()
    pending = [top]
    if os.path.islink(top) and _identity(top) in found.above:  # noqa: PTH114 (speed)
        pending.clear()
    while pending:
        path = pending.pop()
        listed[path], folders = _list_images(path, found)
        if folders and not seen:  # most class folders have no folders, so this costs them nothing
            seen = {*found.above, _identity(top)}
        for entry in folders:
            identity = _identity(entry.path)
            if identity in seen:
                found.repeated.append(found.name(entry))
            else:
                pending.append(entry.path)
                seen.add(identity)
    yield from sorted(listed.items())


def _list_images(folder: str, found: _Found) -> tuple[list[str], list[os.DirEntry]]:
    """Return the names of the images in a folder, sorted, and the folders in it; other entries go to ``found``."""
    names, others = [], []
    with _reading(folder), os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name.endswith(_USUAL_SUFFIXES) and name[0] != "." and is_file(entry):
                names.append(name)  # most files take this short way
            else:
                others.append(entry)
    folders, images = [], []
    for entry in sorted(others, key=lambda entry: entry.name):
        name = entry.name
        if name.startswith("."):
            (found.hidden if is_folder(entry) else found.others).append(found.name(entry))
        elif name.lower().endswith(IMAGE_SUFFIXES) and is_file(entry):
            names.append(name)
        elif is_folder(entry):
            folders.append(entry)
        elif name.lower().endswith(IMAGE_SUFFIXES) and entry.is_symlink():
            found.dangling.append(found.name(entry))
        else:
            found.others.append(found.name(entry))
    names.sort()
    images = []
    for name, size in zip(names, file_sizes(folder, names), strict=True):
        if size:
            images.append(name)
        else:
            found.empty.append(f"{folder}/{name}"[len(found.root) + 1 :])
    return images, folders


def file_sizes(folder: str, names: list[str]) -> Sequence[int]:
    """Return the sizes of files below a folder; raise UserError if one can't be read."""
    sizes = native.file_sizes(folder, names)
    if sizes is not None and min(sizes, default=0) >= 0:
        return sizes
    result = []
    for name in names:
        path = f"{folder}/{name}"
        try:
            result.append(os.stat(path).st_size)  # noqa: PTH116 (speed)
        except OSError as error:
            raise UserError(f"can't read {path}: {error.strerror}") from None
    return result


@contextlib.contextmanager
def _reading(folder: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"can't read the folder {folder}: {error.strerror}") from None


def entries_of(folder: str | Path) -> list[os.DirEntry]:
    """Return the entries of a folder, sorted by name; raise UserError if it can't be read."""
    with _reading(folder), os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def is_folder(entry: os.DirEntry) -> bool:
    """Return whether an entry is a folder or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def is_file(entry: os.DirEntry) -> bool:
    """Return whether an entry is a file or a link to one."""
    try:
        return entry.is_file()
    except OSError:  # a link to itself
        return False


def paths_by_composed_name(root: Path) -> dict[str, str]:
    """Return the paths of all files below a folder by their composed form: lists and disks differ in accents."""
    paths = [os.path.join(top, name) for top, _, names in os.walk(root) for name in names]  # noqa: PTH118 (speed)
    below = [os.path.relpath(path, root) for path in paths]
    return {composed(path): path for path in below}


def _identity(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)  # noqa: PTH116 (speed)
    except OSError as error:
        raise UserError(f"can't read the folder {path}: {error.strerror}") from None
    return status.st_dev, status.st_ino


def is_directory(path: Path) -> bool:
    """Return whether a path is a folder; raise UserError if that can't be known."""
    try:
        return path.is_dir()
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror}") from None


def has_content(path: str) -> bool:
    """Return whether a path is a file that is not empty.

    Raises:
        UserError: The file's folder can't be read.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 (speed)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror}") from None
    return stat.S_ISREG(status.st_mode) and status.st_size > 0
