"""Lists of image files with labels, in the same order on every machine: one folder per class."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...errors import UserError, shorten
from ..pixels.image_files import BadFiles, decode_content
from .class_files import order_classes, order_warnings
from .entries import entries_of, file_sizes, folder_identity, is_directory, is_file, is_folder, reading_folder
from .file_list import FileList
from .tar_files import COMMAND, TarFileList

# torchvision's, and GIF.
IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
_USUAL_SUFFIXES = (*IMAGE_SUFFIXES, ".JPEG", ".JPG", ".PNG")


@dataclass(frozen=True)
class ImageFolder:
    """Image files and their labels.

    Attributes:
        root: The folder that was listed.
        classes: Names of the class folders in composed Unicode (NFC); a label is an index into them. Empty if a list
            has labels only.
        files: Paths of the images.
        labels: One label per image.
        warnings: One line for each kind of ignored entry.
    """

    root: Path
    classes: tuple[str, ...]
    files: FileList
    labels: tuple[int, ...]
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.files)

    def decode(self, index: int, bad_files: BadFiles) -> np.ndarray | None:
        """Return an image, uint8 RGB (H, W, 3); record its file and return None if it can't be read or decoded."""
        return decode_content(lambda: self.files[index], lambda: self.files.read(index), bad_files)

    def pieces(self) -> Iterator[bytes]:
        """Yield everything that training and evaluation use of the list, for a checksum."""
        yield from self.files.pieces()
        yield np.array(self.labels, np.int32).tobytes()
        yield json.dumps(self.classes).encode()

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return everything as arrays, for other processes."""
        text = json.dumps([str(self.root), self.classes, self.warnings])
        return {
            **self.files.to_arrays(),
            "labels": np.array(self.labels, np.int32),
            "text": np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> ImageFolder:
        """Return the folder of ``to_arrays``; the names stay where they are."""
        root, classes, warnings = json.loads(arrays["text"].tobytes().decode("utf-8", "surrogatepass"))
        files = (TarFileList if "tars" in arrays else FileList).from_arrays(root, arrays)
        return cls(Path(root), tuple(classes), files, shared_labels(arrays["labels"]), tuple(warnings))


def shared_labels(labels: np.ndarray) -> tuple[int, ...]:
    """Return labels as integers, one object per class: a number above 256 is a new object each time."""
    numbers = np.empty(int(labels.max(initial=-1)) + 1, object)
    numbers[:] = range(len(numbers))
    return tuple(numbers[labels].tolist())


@dataclass
class Found:
    """Entries below the class folders that are not images, with their paths below ``root``."""

    root: str
    others: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    dangling: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)

    def raise_problems(self, classes_without_images: Sequence[str]) -> None:
        """Raise UserError if there are files that can't be used, or classes without images."""
        tars = [name for name in self.others if name.endswith(".tar")] if classes_without_images else []
        problems = [
            f"{kind}: {shorten(names)}; {remedy}"
            for kind, names, remedy in (
                ("tar files in folders", tars, f"move them to {self.root} and run {COMMAND} {self.root}"),
                ("class folders without images", [] if tars else classes_without_images, "remove or fill them"),
                ("empty files", self.empty, "remove or download them again"),
                ("links to missing files", self.dangling, "remove or repair them"),
            )
            if names
        ]
        if problems:
            raise UserError(f"{self.root}: {'; '.join(problems)}")

    def ignored(self) -> list[str]:
        """Return a line for each kind of ignored entry."""
        return [
            f"ignored {len(names)} {kind}: {shorten(names)}"
            for kind, names in (
                ("hidden folders", self.hidden),
                ("links to folders that are listed already", self.repeated),
                ("entries that are not images", self.others),
            )
            if names
        ]

    @functools.cached_property
    def above(self) -> set[tuple[int, int]]:
        """The root and the folders that contain it: a link to one of them is a loop."""
        root = Path(self.root).resolve()
        return {folder_identity(str(path)) for path in (root, *root.parents)}

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
    found = Found(
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
    entries = entries_of(root)
    on_disk = [entry.name for entry in entries if is_folder(entry) and not entry.name.startswith(".")]
    if not on_disk:
        right = "--data-path must hold train/ and val/ with one folder per class"
        if any(entry.name.endswith(".coco.json") for entry in entries):
            right = f"it holds COCO annotations, which TASK: detection reads; for classification {right}"
        elif images := [entry.name for entry in entries if entry.name.lower().endswith(IMAGE_SUFFIXES)]:
            right = (
                f"it holds images directly ({shorten(images, 2)}): move each into the folder of its class, or list the "
                "classes of validation images in DATA.VAL_LIST"
            )
        raise UserError(f"{root} has no class folders; {right}")
    return order_classes(on_disk, class_index, root)


def _folders_below(top: str, found: Found) -> Iterator[tuple[str, list[str]]]:
    """Yield a class folder and each folder below it with the names of its images, in torchvision's order."""
    listed: dict[str, list[str]] = {}
    seen: set[tuple[int, int]] = set()
    pending = [top]
    if os.path.islink(top) and folder_identity(top) in found.above:  # noqa: PTH114 (speed)
        pending.clear()
    while pending:
        path = pending.pop()
        listed[path], folders = _list_images(path, found)
        if folders and not seen:  # most class folders have no folders, so this costs them nothing
            seen = {*found.above, folder_identity(top)}
        for entry in folders:
            identity = folder_identity(entry.path)
            if identity in seen:
                found.repeated.append(found.name(entry))
            else:
                pending.append(entry.path)
                seen.add(identity)
    yield from sorted(listed.items())


def _list_images(folder: str, found: Found) -> tuple[list[str], list[os.DirEntry]]:
    """Return the names of the images in a folder, sorted, and the folders in it; other entries go to ``found``."""
    names, others = [], []
    with reading_folder(folder), os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name.endswith(_USUAL_SUFFIXES) and name[0] != "." and is_file(entry):
                names.append(name)  # most files take this short way
            else:
                others.append(entry)
    folders: list[os.DirEntry] = []
    images: list[str] = []
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
