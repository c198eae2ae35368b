"""A folder with one sub-folder of images per class, listed in an order that every machine agrees on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")


@dataclass(frozen=True)
class ImageFolder:
    """Image files and their labels; ``classes`` are the sub-folders' names in sorted order, a label its index."""

    root: Path
    classes: tuple[str, ...]
    files: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.files)


def scan_folder(root: str | Path) -> ImageFolder:
    """List ``root``; hidden folders and files of other types are left aside, a class without images is refused."""
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; --data-path must hold train/ and val/ with one folder per class")
    classes = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise UserError(f"{root} holds no class folders")
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(
            str(file) for file in (root / name).iterdir()
            if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".") and file.is_file()
        )  # fmt: skip
        if not found:
            raise UserError(f"{root / name} holds no images ({', '.join(IMAGE_SUFFIXES)}); remove it or fill it")
        files += found
        labels += [label] * len(found)
    return ImageFolder(root, tuple(classes), tuple(files), tuple(labels))


def check_classes(train: ImageFolder | None, val: ImageFolder, num_classes: int) -> None:
    """Raise where the class folders are not ``num_classes`` many, or not the same for training and evaluation."""
    for folder in (train, val):
        if folder is not None and len(folder.classes) != num_classes:
            raise UserError(
                f"{folder.root} has {len(folder.classes)} class folders, but MODEL.NUM_CLASSES={num_classes}; "
                f"pass --opts MODEL.NUM_CLASSES {len(folder.classes)}, or mend the folder"
            )
    if train is not None and train.classes != val.classes:
        odd = sorted(set(train.classes) ^ set(val.classes))
        raise UserError(f"{train.root} and {val.root} differ in their class folders: {', '.join(odd[:5])}")
