"""Layouts of images in tar files: class folders, WebDataset's labels, and others that are explained."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ...errors import UserError, printable, shorten

LABEL_SUFFIX = ".cls"  # of WebDataset: a file with the label as a number
_MOST_BYTES = 32  # of a file with a label
_PARTS = {"train", "training", "val", "valid", "validation", "test"}
_RIGHT = "images must be stored as <class>/<image>, such as n01440764/n01440764_10026.JPEG"


class TarImage(NamedTuple):
    """An image or a label in a tar file; its first two fields are the order of torchvision."""

    folder: str
    name: str
    number: int
    offset: int
    size: int

    @property
    def path(self) -> str:
        """Its path in the tar file."""
        return f"{self.folder}/{self.name}" if self.folder else self.name

    @property
    def sample(self) -> tuple[int, str, str]:
        """The sample of WebDataset that it is a part of: the name up to its first dot, in one tar file."""
        return self.number, self.folder, self.name.partition(".")[0]


def check_layout(
    root: Path, classes: Mapping[str, Sequence[TarImage]], flat: list[TarImage], others: list[str], tars: int
) -> None:
    """Raise UserError unless the images of tar files are in class folders.

    Args:
        root: The folder of the tar files.
        classes: The images by their first folder.
        flat: The images without a folder.
        others: Names of further members.
        tars: Number of tar files.
    """
    images = [image for members in classes.values() for image in members]
    names = [image.path for image in (*images, *flat)]
    inner = [name for name in others if name.endswith(".tar")]
    if not images and inner:
        raise UserError(
            f"{root}: the tar files hold tar files ({shorten(inner, 2)}), one per class: extract each into a folder of "
            "its name, then run python tools/make_tar_files.py"
        )
    if windows := [name for name in names if "\\" in name]:
        raise UserError(
            f"{root}: the tar files hold names with Windows separators: {shorten(windows, 2)}; write them again with /"
        )
    if flat and not images:
        ways = "; or as pairs of 00000000.jpg and 00000000.cls with the label"
        if tars > 1:
            ways += "; if each tar file is one class, extract each into a folder of its name first"
        raise UserError(
            f"{root}: the tar files hold images without class folders ({shorten(names, 2)}); {_RIGHT}{ways}"
        )
    if not classes:
        raise UserError(f"{root}: the tar files hold no class folders; {_RIGHT}")
    depth = _common_folders([image.folder.split("/") for image in images])
    if depth:
        common = "/".join(images[0].folder.split("/")[:depth])
        raise UserError(
            f"{root}: all images are below {common}/, which would be one class; pass --strip-components {depth} if the "
            "folders below it are the classes"
        )
    if set(classes) <= _PARTS and all(members for members in classes.values()):
        parts = shorten([f"{name}/" for name in classes])
        raise UserError(
            f"{root}: the tar files hold {parts}, which are parts of a data set, not classes; write a tar file of each "
            "part"
        )


def _common_folders(folders: list[list[str]]) -> int:
    """Return how many leading folders all images share, if others are below them; else 0."""
    if not folders:
        return 0
    first, last = min(folders), max(folders)
    depth = 0
    while depth < min(len(first), len(last)) and first[depth] == last[depth]:
        depth += 1
    return depth if all(len(parts) > depth for parts in folders) else 0


def labelled_images(
    root: Path, tars: Sequence[str], labels: list[TarImage], images: list[TarImage]
) -> dict[str, list[TarImage]]:
    """Return the images by their labels, 0 to the largest one, sorted by name.

    Args:
        root: The folder of the tar files.
        tars: Their names.
        labels: The files with labels.
        images: The images.

    Raises:
        UserError: An image has no label, two images or labels belong together, or a label is not a number from 0.
    """
    numbers = _read_labels(root, tars, labels)
    unlabelled = [f"{tars[i.number]}:{i.path}" for i in images if i.sample not in numbers]
    if unlabelled:
        raise UserError(f"{root}: images without a {LABEL_SUFFIX} file: {shorten(unlabelled)}; add or remove them")
    counts = Counter(image.sample for image in images)
    twice = [f"{tars[i.number]}:{i.path}" for i in images if counts[i.sample] > 1]
    if twice:
        raise UserError(f"{root}: several images with one label: {shorten(twice)}; keep one image of each sample")
    if not images:
        raise UserError(f"{root}: the tar files hold labels, but no images")
    grouped: dict[str, list[TarImage]] = {str(label): [] for label in range(max(numbers.values()) + 1)}
    for image in sorted(images):
        grouped[str(numbers[image.sample])].append(image)
    return grouped


def _read_labels(root: Path, tars: Sequence[str], labels: list[TarImage]) -> dict[tuple[int, str, str], int]:
    numbers: dict[tuple[int, str, str], int] = {}
    bad = []
    for number, entries in itertools.groupby(labels, lambda entry: entry.number):
        with (root / tars[number]).open("rb") as file:
            for entry in entries:
                file.seek(entry.offset)
                text = file.read(min(entry.size, _MOST_BYTES))
                shown = f"{tars[number]}:{entry.path}"
                if entry.sample in numbers:
                    bad.append(f"{shown} is there twice")
                elif entry.size > _MOST_BYTES or not re.fullmatch(rb"\s*[0-9]{1,6}\s*", text):
                    bad.append(f"{shown} has {printable(ascii(text), 40)}")
                else:
                    numbers[entry.sample] = int(text)
    if bad:
        raise UserError(
            f"{root}: labels that are not whole numbers from 0 to 999,999: {shorten(bad)}; write one number in each"
        )
    return numbers
