"""Class names: ImageNet's from the package's list, others from folders, files or checkpoints."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from ...errors import UserError, printable, shorten
from .class_files import ClassName, class_lines, composed, read_class_file, read_text
from .entries import is_directory
from .splits import class_names

CLASSES_KEY = "classes"  # in a checkpoint's metadata: JSON list of the class folders in the order of their labels
IMAGENET_FILE = Path(__file__).with_name("imagenet_classes.txt")  # sources and licences are in its header


@functools.cache
def imagenet_classes() -> tuple[ClassName, ...]:
    """Return the 1,000 classes of ILSVRC 2012 in the order of their labels."""
    return tuple(class_lines(read_text(IMAGENET_FILE)))


def named_classes(folders: Iterable[str]) -> list[ClassName]:
    """Add readable names to class folders: WordNet's for ImageNet's synset ids, else the folder's name."""
    known = {row.folder: row for row in imagenet_classes()}
    return [known.get(folder, ClassName(folder, folder)) for folder in folders]


def read_class_names(source: Path, num_classes: int, class_index: str = "") -> list[ClassName]:
    """Read class names from a folder of class folders or tar files, or from a file, see ``class_files``.

    A synset id without a readable name is replaced by WordNet's name.

    Args:
        source: The folder or file.
        num_classes: Expected number of classes.
        class_index: For a folder: file with the order of the classes, see ``msg_ms.data.scan_folder``.

    Returns:
        The classes in the order of their labels.

    Raises:
        UserError: ``source`` does not exist, cannot be read, or has a different number of classes.
    """
    if not is_directory(source) and not source.exists():
        raise UserError(f"--classes {source} does not exist")
    if is_directory(source):
        classes = named_classes(class_names(source, class_index))
        if not classes:
            raise UserError(f"--classes {source} has labels without names; name a file with one class per line")
    else:
        classes = read_class_file(source)
        classes = [named_classes([row.folder])[0] if row.folder == row.name else row for row in classes]
    if len(classes) != num_classes:
        raise UserError(f"--classes {source} has {len(classes)} classes, but MODEL.NUM_CLASSES={num_classes}")
    return classes


def stored_classes(text: str) -> list[str]:
    """Return the class folders in a checkpoint's metadata, in the order of their labels.

    Args:
        text: The ``CLASSES_KEY`` entry, may be empty.

    Raises:
        UserError: It is not a list of names.
    """
    try:
        folders = json.loads(text) if text else []
    except (ValueError, RecursionError):
        folders = None
    if not isinstance(folders, list) or not all(isinstance(folder, str) for folder in folders):
        raise UserError(f"the class names in the checkpoint are no list of names: {printable(text, 100)}")
    return [composed(folder) for folder in folders]


def default_class_names(num_classes: int, stored: str) -> list[ClassName]:
    """Return the class names of a model for which the user named none.

    Args:
        num_classes: Number of classes of the model.
        stored: The checkpoint's ``CLASSES_KEY`` entry, may be empty.

    Returns:
        The stored classes, else ImageNet's for 1,000 classes, else numbers.
    """
    folders = stored_classes(stored)
    if len(folders) == num_classes:
        return named_classes(folders)
    if num_classes == len(imagenet_classes()):
        return list(imagenet_classes())
    return [ClassName(str(i), str(i)) for i in range(num_classes)]


def class_order_warning(names: Sequence[ClassName], stored: str) -> list[str]:
    """Return a line if ``--classes`` names a class of the checkpoint at another label.

    Args:
        names: The classes of ``--classes``.
        stored: The checkpoint's ``CLASSES_KEY`` entry, may be empty.
    """
    trained = stored_classes(stored)
    given = [row.folder for row in names]
    moved = [
        f"{i}: {here} here, {there} there"
        for i, (here, there) in enumerate(zip(given, trained))  # noqa: B905
        if here != there and (there in given or here in trained)
    ]
    return [f"warning: --classes has another order than the checkpoint's classes ({shorten(moved)})"] if moved else []
