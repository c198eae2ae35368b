"""Class names: ImageNet's from the package's list, others from folders, files or checkpoints."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from .folder import class_folders, read_text

CLASSES_KEY = "classes"  # in a checkpoint's metadata: JSON list of the class folders in the order of their labels
IMAGENET_FILE = Path(__file__).with_name("imagenet_classes.txt")  # sources and licences are in its header


@dataclass(frozen=True)
class ClassName:
    """Folder and readable name of a class.

    Attributes:
        folder: Name of the class folder; for ImageNet the WordNet synset id.
        name: Readable name, or several separated by commas.
    """

    folder: str
    name: str

    @property
    def short(self) -> str:
        """First of several names."""
        return self.name.split(",")[0]


@functools.cache
def imagenet_classes() -> tuple[ClassName, ...]:
    """Return the 1,000 classes of ILSVRC 2012 in the order of their labels."""
    return tuple(_read_lines(IMAGENET_FILE))


def named_classes(folders: Iterable[str]) -> list[ClassName]:
    """Add readable names to class folders: WordNet's for ImageNet's synset ids, else the folder's name."""
    known = {row.folder: row for row in imagenet_classes()}
    return [known.get(folder, ClassName(folder, folder)) for folder in folders]


def read_class_names(source: Path, num_classes: int, class_index: str = "") -> list[ClassName]:
    """Read class names from a folder of class folders or from a text file.

    A text file has one class per line: a name, a synset id, or both separated by a tab. Lines that start with # are
    comments.

    Args:
        source: The folder or file.
        num_classes: Expected number of classes.
        class_index: For a folder: file with the order of the classes, see ``msg_ms.data.scan_folder``.

    Returns:
        The classes in the order of their labels.

    Raises:
        UserError: ``source`` does not exist, cannot be read, or has a different number of classes.
    """
    if not source.exists():
        raise UserError(f"--classes {source} does not exist")
    if source.is_dir():
        classes = named_classes(class_folders(source, class_index))
    else:
        classes = _read_lines(source)
        classes = [named_classes([row.folder])[0] if row.folder == row.name else row for row in classes]
    if len(classes) != num_classes:
        raise UserError(f"--classes {source} has {len(classes)} classes, but MODEL.NUM_CLASSES={num_classes}")
    return classes


def default_class_names(num_classes: int, stored: str) -> list[ClassName]:
    """Return the class names of a model for which the user named none.

    Args:
        num_classes: Number of classes of the model.
        stored: The checkpoint's ``CLASSES_KEY`` entry, may be empty.

    Returns:
        The stored classes, else ImageNet's for 1,000 classes, else numbers.
    """
    folders = json.loads(stored) if stored else []
    if len(folders) == num_classes:
        return named_classes(folders)
    if num_classes == len(imagenet_classes()):
        return list(imagenet_classes())
    return [ClassName(str(i), str(i)) for i in range(num_classes)]


def _read_lines(path: Path) -> list[ClassName]:
    lines = [line.strip() for line in read_text(path).splitlines()]
    parts = [line.partition("\t") for line in lines if line and not line.startswith("#")]
    return [ClassName(first.strip(), rest.strip() or first.strip()) for first, _, rest in parts]
