"""Lists of image files with labels, in the same order on every machine.

Two layouts are supported: one sub-folder per class, or a flat folder with a list of file names and labels.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from ..config import DataConfig
from ..errors import UserError, nearest, shorten

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")


@dataclass(frozen=True)
class ImageFolder:
    """Image files and their labels.

    Attributes:
        root: The folder that was listed.
        classes: Names of the class folders; a label is an index into them.
        files: Paths of the images.
        labels: One label per image.
        warnings: One line for each kind of ignored entry.
    """

    root: Path
    classes: tuple[str, ...]
    files: tuple[str, ...]
    labels: tuple[int, ...]
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.files)


def read_text(path: Path) -> str:
    """Read a UTF-8 text file.

    Raises:
        UserError: The file cannot be read or decoded.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"can't read {path}: {getattr(error, 'strerror', None) or error}") from None


def class_folders(root: str | Path, class_index: str | Path | None = None) -> tuple[str, ...]:
    """Return the names of the class folders in ``root``, in the order of their labels.

    Arguments and errors are those of ``scan_folder``.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root} is not a directory; --data-path must hold train/ and val/ with one folder per class")
    with os.scandir(root) as entries:
        folders = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    if not folders:
        raise UserError(f"{root} has no class folders; --data-path must hold train/ and val/ with one folder per class")
    return tuple(folders) if not class_index else _ordered_classes(Path(class_index), root, folders)


def scan_folder(root: str | Path, class_index: str | Path | None = None) -> ImageFolder:
    """List a folder that has one sub-folder per class.

    Hidden folders and files of other types are ignored and reported in ``warnings``.

    Args:
        root: Folder to list.
        class_index: File with the class folders in the order of their labels: one per line, or JSON like
            ``{"0": ["n01440764", "tench"]}``. By default classes are sorted by name.

    Raises:
        UserError: There are no class folders, a class has no images, a file is empty, or ``class_index`` does not
            match. The text names every such class and file.
    """
    root = Path(root)
    classes = class_folders(root, class_index)
    with os.scandir(root) as entries:
        entries = sorted(entries, key=lambda entry: entry.name)
    files: list[str] = []
    labels: list[int] = []
    ignored_files = [entry.name for entry in entries if not entry.is_dir()]
    hidden = [entry.name for entry in entries if entry.is_dir() and entry.name.startswith(".")]
    empty_files: list[str] = []
    classes_without_images: list[str] = []
    for label, name in enumerate(classes):
        images, others, empty = _list_images(root / name)
        files += images
        labels += [label] * len(images)
        ignored_files += [f"{name}/{other}" for other in others]
        empty_files += [f"{name}/{file}" for file in empty]
        if not images and not empty:
            classes_without_images.append(name)
    problems = []
    if classes_without_images:
        problems.append(f"class folders without images: {shorten(classes_without_images)}; remove or fill them")
    if empty_files:
        problems.append(f"empty files: {shorten(empty_files)}; remove or download them again")
    if problems:
        raise UserError(f"{root}: {'; '.join(problems)}")
    warnings = []
    if hidden:
        warnings.append(f"{root}: ignored {len(hidden)} hidden folders: {shorten(hidden)}")
    if ignored_files:
        warnings.append(f"{root}: ignored {len(ignored_files)} entries that are not images: {shorten(ignored_files)}")
    return ImageFolder(root, classes, tuple(files), tuple(labels), tuple(warnings))


def scan_list(root: str | Path, list_file: str | Path, classes: tuple[str, ...]) -> ImageFolder:
    """List a flat folder with the help of a text file.

    Args:
        root: Folder with the images.
        list_file: File with a line ``<file name> <class folder name or label>`` per image.
        classes: Class folders in the order of their labels.

    Raises:
        UserError: A line cannot be parsed, or a file is missing or empty.
    """
    root, list_file = Path(root), Path(list_file)
    numbers = {name: i for i, name in enumerate(classes)} | {str(i): i for i in range(len(classes))}
    files: list[str] = []
    labels: list[int] = []
    for n, line in enumerate(read_text(list_file).splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or words[1] not in numbers:
            raise UserError(
                f"{list_file}, line {n}: {line.strip()!r}: expected a file name and a class, one of {classes[0]}, ... "
                f"or 0 to {len(classes) - 1}"
            )
        files.append(str(root / words[0]))
        labels.append(numbers[words[1]])
    if not files:
        raise UserError(f"{list_file} lists no images")
    with os.scandir(root) as entries:
        sizes = {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
    unusable = [Path(file).name for file in files if not sizes.get(Path(file).name)]
    if unusable:
        raise UserError(f"{list_file} lists files that are missing or empty in {root}: {shorten(unusable)}")
    return ImageFolder(root, classes, tuple(files), tuple(labels))


def load_folders(config: DataConfig, num_classes: int, training: bool) -> tuple[ImageFolder | None, ImageFolder]:
    """List ``train/`` and ``val/`` below ``DATA.DATA_PATH`` and check them.

    Args:
        config: The ``DATA`` section of the configuration.
        num_classes: Number of classes of the model.
        training: Whether the training images are needed.

    Returns:
        The training images (None unless ``training``, or if ``DATA.VAL_LIST`` needs them) and the evaluation images.

    Raises:
        UserError: A folder is unusable, see ``scan_folder``, or the classes do not match.
    """
    root = Path(config.data_path)
    train = scan_folder(root / "train", config.class_index) if training or config.val_list else None
    if config.val_list:
        val = scan_list(root / "val", config.val_list, train.classes)
    else:
        val = scan_folder(root / "val", config.class_index)
    check_classes(train, val, num_classes)
    return train, val


def check_classes(train: ImageFolder | None, val: ImageFolder, num_classes: int) -> None:
    """Raise UserError unless both parts have the same ``num_classes`` class folders."""
    if train is not None:
        check_same_classes(train, val)
    if len(val.classes) != num_classes:
        raise UserError(
            f"{val.root} has {len(val.classes)} class folders, but MODEL.NUM_CLASSES={num_classes}; "
            f"pass --opts MODEL.NUM_CLASSES {len(val.classes)}, or fix the folder"
        )


def check_same_classes(train: ImageFolder, val: ImageFolder) -> None:
    """Raise UserError if the class folders of training and evaluation differ."""
    if train.classes != val.classes:
        different = sorted(set(train.classes) ^ set(val.classes))
        raise UserError(
            f"{train.root} and {val.root} have different class folders: {shorten(different)}; labels would not match"
        )


def _list_images(folder: Path) -> tuple[list[str], list[str], list[str]]:
    """Return image paths, names of other entries and names of empty image files, each sorted."""
    images, others, empty = [], [], []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            image = entry.name.lower().endswith(IMAGE_SUFFIXES) and not entry.name.startswith(".")
            if not image or not entry.is_file():
                others.append(entry.name)
            elif entry.stat().st_size == 0:
                empty.append(entry.name)
            else:
                images.append(entry.path)
    return images, others, empty


def _ordered_classes(class_index: Path, root: Path, folders: list[str]) -> tuple[str, ...]:
    """Return the class folders in the order of ``class_index``."""
    text = read_text(class_index)
    try:
        content = json.loads(text) if class_index.suffix == ".json" else text.split()
        if isinstance(content, dict):
            rows = [content[str(i)] for i in range(len(content))]
            content = [row if isinstance(row, str) else row[0] for row in rows]
        names = tuple(map(str, content))
    except (ValueError, KeyError, IndexError, TypeError):
        raise UserError(
            f'{class_index}: expected one class folder per line, or JSON like {{"0": ["n01440764", "tench"]}}'
        ) from None
    if len(set(names)) != len(names):
        raise UserError(f"{class_index} lists a class twice")
    different = sorted(set(names) ^ set(folders))
    if different:
        raise UserError(
            f"{class_index} and the class folders of {root} differ: {shorten(different)}"
            f"{nearest(different[0], folders)}"
        )
    return names
