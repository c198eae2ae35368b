"""What classes are called: ImageNet's from the package's own list, others' from folders, files or checkpoints."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from .folder import class_folders, read_text

CLASSES_KEY = "classes"  # of a checkpoint's metadata: a JSON list of class folders in the order of their labels
IMAGENET_FILE = Path(__file__).with_name("imagenet_classes.txt")  # its sources and licences stand at its top


@dataclass(frozen=True)
class ClassName:
    """A class as data sets know it (its folder, an ImageNet synset id) and as people call it."""

    folder: str
    name: str

    @property
    def short(self) -> str:
        """The first of several names."""
        return self.name.split(",")[0]


@functools.cache
def imagenet_classes() -> tuple[ClassName, ...]:
    """The 1,000 classes of ILSVRC 2012 in the order of their labels."""
    return tuple(_read_lines(IMAGENET_FILE))


def named_classes(folders: Iterable[str]) -> list[ClassName]:
    """Class folders with their names: of ImageNet's synset ids WordNet's, of others their own."""
    known = {row.folder: row for row in imagenet_classes()}
    return [known.get(folder, ClassName(folder, folder)) for folder in folders]


def read_class_names(source: Path, num_classes: int, class_index: str = "") -> list[ClassName]:
    """From a folder of class folders, in the order of ``class_index`` where there is one, or from a text file.

    The file has a class per line: a name, a synset id, or both with a tab between; lines that begin with # are
    comments. Raises UserError where there are not ``num_classes``.
    """
    if not source.exists():
        raise UserError(f"--classes {source}: there is no such folder or file")
    if source.is_dir():
        classes = named_classes(class_folders(source, class_index))
    else:
        classes = _read_lines(source)
        classes = [named_classes([row.folder])[0] if row.folder == row.name else row for row in classes]
    if len(classes) != num_classes:
        raise UserError(f"--classes {source} has {len(classes)} classes, but MODEL.NUM_CLASSES={num_classes}")
    return classes


def default_class_names(num_classes: int, noted: str) -> list[ClassName]:
    """The class folders that a checkpoint noted (a JSON list, may be empty), else ImageNet's 1,000, else numbers."""
    folders = json.loads(noted) if noted else []
    if len(folders) == num_classes:
        return named_classes(folders)
    if num_classes == len(imagenet_classes()):
        return list(imagenet_classes())
    return [ClassName(str(i), str(i)) for i in range(num_classes)]


def _read_lines(path: Path) -> list[ClassName]:
    lines = [line.strip() for line in read_text(path).splitlines()]
    parts = [line.partition("\t") for line in lines if line and not line.startswith("#")]
    return [ClassName(first.strip(), rest.strip() or first.strip()) for first, _, rest in parts]
