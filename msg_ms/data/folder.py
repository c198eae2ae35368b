"""Image files and their labels, listed in an order that every machine agrees on.

Two layouts: one sub-folder per class, or a flat folder with a list of file names and labels.
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
    """Image files and their labels; a label is the index of its class in ``classes``.

    ``warnings`` name what was left aside and why.
    """

    root: Path
    classes: tuple[str, ...]
    files: tuple[str, ...]
    labels: tuple[int, ...]
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.files)


def read_text(path: Path) -> str:
    """A text file's content; UserError where it can't be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"can't read {path}: {getattr(error, 'strerror', None) or error}") from None


def class_folders(root: str | Path, class_index: str | Path | None = None) -> tuple[str, ...]:
    """The names of a folder's class folders in the order of their labels; see :func:`scan_folder`."""
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; --data-path must hold train/ and val/ with one folder per class")
    with os.scandir(root) as entries:
        found = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    if not found:
        raise UserError(
            f"{root} holds no class folders; --data-path must hold train/ and val/ with one folder per class"
        )
    return tuple(found) if not class_index else _ordered_classes(Path(class_index), root, found)


def scan_folder(root: str | Path, class_index: str | Path | None = None) -> ImageFolder:
    """List a folder with one sub-folder per class; hidden folders and files of other types are left aside.

    Classes are numbered in the order of their names, or as the file ``class_index`` lists them. Raises UserError for
    a folder without classes, a class without images and empty files, naming all of them and the remedy.
    """
    root = Path(root)
    classes = class_folders(root, class_index)
    with os.scandir(root) as entries:
        entries = sorted(entries, key=lambda entry: entry.name)
    files: list[str] = []
    labels: list[int] = []
    stray = [entry.name for entry in entries if not entry.is_dir()]
    hidden = [entry.name for entry in entries if entry.is_dir() and entry.name.startswith(".")]
    bare, empty = [], []
    for label, name in enumerate(classes):
        images, others, zero = _list_images(root / name)
        files += images
        labels += [label] * len(images)
        stray += [f"{name}/{other}" for other in others]
        empty += [f"{name}/{file}" for file in zero]
        bare += [] if images or zero else [name]
    if bare or empty:
        problems = [f"class folders without images: {shorten(bare)}; remove or fill them"] if bare else []
        problems += [f"files of zero bytes: {shorten(empty)}; remove or fetch them again"] if empty else []
        raise UserError(f"{root}: {'; '.join(problems)}")
    warnings = [f"{root}: {len(hidden)} hidden folders left aside: {shorten(hidden)}"] if hidden else []
    warnings += [f"{root}: {len(stray)} files that are no images left aside: {shorten(stray)}"] if stray else []
    return ImageFolder(root, classes, tuple(files), tuple(labels), tuple(warnings))


def scan_list(root: str | Path, list_file: str | Path, classes: tuple[str, ...]) -> ImageFolder:
    """Read a flat folder through a list with a line ``<file name> <class folder name or number>`` per image."""
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
    with os.scandir(root) as entries:
        sizes = {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
    missing = [Path(file).name for file in files if not sizes.get(Path(file).name)]
    if missing or not files:
        raise UserError(f"{list_file} names no images or ones that {root} lacks or that are empty: {shorten(missing)}")
    return ImageFolder(root, classes, tuple(files), tuple(labels))


def load_folders(config: DataConfig, num_classes: int, training: bool) -> tuple[ImageFolder | None, ImageFolder]:
    """``train/`` (None unless ``training``) and ``val/`` below ``DATA.DATA_PATH``, checked against each other."""
    root = Path(config.data_path)
    train = scan_folder(root / "train", config.class_index) if training or config.val_list else None
    if config.val_list:
        val = scan_list(root / "val", config.val_list, train.classes)
    else:
        val = scan_folder(root / "val", config.class_index)
    check_classes(train, val, num_classes)
    return train, val


def check_classes(train: ImageFolder | None, val: ImageFolder, num_classes: int) -> None:
    """Raise where the class folders are not ``num_classes`` many, or not the same for training and evaluation."""
    if train is not None:
        check_same_classes(train, val)
    if len(val.classes) != num_classes:
        raise UserError(
            f"{val.root} has {len(val.classes)} class folders, but MODEL.NUM_CLASSES={num_classes}; "
            f"pass --opts MODEL.NUM_CLASSES {len(val.classes)}, or mend the folder"
        )


def check_same_classes(train: ImageFolder, val: ImageFolder) -> None:
    """Raise where the class folders of training and evaluation differ."""
    if train.classes != val.classes:
        odd = sorted(set(train.classes) ^ set(val.classes))
        raise UserError(
            f"{train.root} and {val.root} differ in their class folders: {shorten(odd)}; labels would not mean the same"
        )


def _list_images(folder: Path) -> tuple[list[str], list[str], list[str]]:
    """(image paths, names of other entries, names of image files with zero bytes), each sorted."""
    images, others, zero = [], [], []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            image = entry.name.lower().endswith(IMAGE_SUFFIXES) and not entry.name.startswith(".")
            if not image or not entry.is_file():
                others.append(entry.name)
            elif entry.stat().st_size == 0:
                zero.append(entry.name)
            else:
                images.append(entry.path)
    return images, others, zero


def _ordered_classes(class_index: Path, root: Path, found: list[str]) -> tuple[str, ...]:
    """Class folders in the order of the file: one name per line, or JSON {"0": ["n01440764", "tench"], ...}."""
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
    odd = sorted(set(names) ^ set(found))
    if odd:
        raise UserError(f"{class_index} and the class folders of {root} differ: {shorten(odd)}{nearest(odd[0], found)}")
    return names
