"""The two parts of a data set: ``train/`` and ``val/`` with the same classes, as class folders or as tar files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...config import DataConfig
from ...errors import UserError, shorten
from .class_files import read_index, visible
from .entries import entries_of, is_directory, is_folder
from .folder import ImageFolder, class_folders, scan_folder
from .image_list import scan_list
from .tar_files import COMMAND
from .tar_folder import compressed_names, scan_tar_files, tar_classes, tar_names
from .tar_index import INDEX

PARTS = ("train", "val")


def scan_images(root: str | Path, class_index: str | Path | None = None) -> ImageFolder:
    """List ``train/`` or ``val/``: see ``scan_folder`` and ``scan_tar_files``."""
    return (scan_tar_files if has_tar_files(Path(root)) else scan_folder)(root, class_index)


def class_names(root: str | Path, class_index: str | Path | None = None) -> tuple[str, ...]:
    """Return the classes of ``train/`` or ``val/`` without a list of its images."""
    return (tar_classes if has_tar_files(Path(root)) else class_folders)(root, class_index)


def has_tar_files(root: Path) -> bool:
    """Return whether a folder holds tar files with an index; False for any folder that class folders may be in.

    Raises:
        UserError: The folder holds tar files without an index, or an index beside class folders.
    """
    if not is_directory(root):
        beside = sorted(path.name for path in root.parent.glob(f"{root.name}*.tar"))
        if beside:
            raise UserError(f"{root} is not a directory; move {shorten(beside, 2)} into it, then run {COMMAND} {root}")
        return False
    entries = entries_of(root)
    names = [entry.name for entry in entries]
    folders = any(is_folder(entry) and not entry.name.startswith(".") for entry in entries)
    if INDEX in names and folders:
        raise UserError(f"{root} holds class folders and {INDEX}, the index of tar files; remove one of them")
    if INDEX in names or folders:
        return not folders
    if tars := tar_names(names):
        raise UserError(f"{root} holds tar files without an index ({shorten(tars, 2)}); run {COMMAND} {root}")
    if tars := compressed_names(names):
        raise UserError(
            f"{root} holds compressed tar files ({shorten(tars, 2)}); only uncompressed ones can be read by offset: "
            f"unpack them, then run {COMMAND} {root}"
        )
    return False


def load_folders(config: DataConfig, num_classes: int, training: bool) -> tuple[ImageFolder | None, ImageFolder]:
    """List ``train/`` and ``val/`` below ``DATA.DATA_PATH`` and check them.

    Args:
        config: The ``DATA`` section of the configuration.
        num_classes: Number of classes of the model.
        training: Whether the training images are needed.

    Returns:
        The training images (None unless ``training``) and the evaluation images.

    Raises:
        UserError: A folder or a list is unusable, see ``scan_images`` and ``scan_list``, or the classes do not match.
    """
    root = Path(config.data_path)
    check_layout(root)
    train = scan_images(root / "train", config.class_index) if training else None
    if config.val_list:
        classes = train.classes if train is not None else known_classes(root, config.class_index)
        classes = classes or None  # labels alone have no names
        val = scan_list(root / "val", config.val_list, classes, num_classes)
    else:
        val = scan_images(root / "val", config.class_index)
    check_classes(train, val, num_classes)
    if train is not None:  # do not repeat lines that are about the classes
        val = replace(val, warnings=tuple(line for line in val.warnings if line not in train.warnings))
    return train, val


def check_layout(root: Path) -> None:
    """Raise UserError if a folder does not exist, or holds a data set of another task."""
    if not is_directory(root):
        raise UserError(f"{root} is not a directory; --data-path must hold train/ and val/ with one folder per class")
    names = {entry.name for entry in entries_of(root)}
    if "annotations" in names and not names & set(PARTS):
        raise UserError(
            f"{root} holds annotations/, as COCO's data sets for detection do: choose a configuration with TASK: "
            "detection; classification needs train/ and val/ with one folder per class"
        )


def known_classes(root: Path, class_index: str) -> tuple[str, ...] | None:
    """Return the classes without a scan of the training images; None if only the list knows them."""
    if class_index:
        return tuple(read_index(class_index))
    return (class_names(root / "train") or None) if is_directory(root / "train") else None


def check_classes(train: ImageFolder | None, val: ImageFolder, num_classes: int) -> None:
    """Raise UserError unless both parts have the same ``num_classes`` class folders."""
    if train is not None:
        check_same_classes(train, val)
    for folder in (val,) if train is None else (train, val):
        if not folder.classes and (largest := max(folder.labels)) >= num_classes:
            raise UserError(
                f"{folder.root} has labels up to {largest}, but MODEL.NUM_CLASSES={num_classes}; pass --opts "
                f"MODEL.NUM_CLASSES {largest + 1}, or fix the labels"
            )
    if val.classes and len(val.classes) != num_classes:
        raise UserError(
            f"{val.root} has {len(val.classes)} class folders, but MODEL.NUM_CLASSES={num_classes}; "
            f"pass --opts MODEL.NUM_CLASSES {len(val.classes)}, or fix the folder"
        )


def check_same_classes(train: ImageFolder, val: ImageFolder) -> None:
    """Raise UserError if the class folders of training and evaluation differ."""
    if bool(train.classes) != bool(val.classes):
        named, other = (train, val) if train.classes else (val, train)
        raise UserError(
            f"{named.root} has names of classes and {other.root} has labels alone: set DATA.CLASS_INDEX to a file with "
            "the class of each label"
        )
    if train.classes != val.classes:
        different = [visible(name) for name in sorted(set(train.classes) ^ set(val.classes))]
        raise UserError(
            f"{train.root} and {val.root} have different class folders: {shorten(different)}; labels would not match"
        )


def folders_to_arrays(folders: tuple[ImageFolder | None, ImageFolder]) -> dict[str, np.ndarray]:
    """Return the result of ``load_folders`` as arrays, for other processes."""
    lists = {part: folder.to_arrays() for part, folder in zip(PARTS, folders, strict=True) if folder is not None}
    return {f"{part}_{name}": array for part, arrays in lists.items() for name, array in arrays.items()}


def folders_from_arrays(arrays: Mapping[str, np.ndarray]) -> tuple[ImageFolder | None, ImageFolder]:
    """Return the result of ``load_folders`` from ``folders_to_arrays``."""
    groups: dict[str, dict[str, np.ndarray]] = {part: {} for part in PARTS}
    for key, array in arrays.items():
        part, _, name = key.partition("_")
        groups[part][name] = array
    train, val = (groups[part] for part in PARTS)
    return ImageFolder.from_arrays(train) if train else None, ImageFolder.from_arrays(val)
