"""Images with labels, in folders or in tar files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..pixels.image_files import BadFiles, decode_content
from .file_list import FileList
from .tar_files import TarFileList


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
