"""List the images of tar files for their index; ``tools/index_tar_files.py`` and ``tools/make_tar_files.py`` do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ...errors import UserError, shorten
from .class_files import composed, order_classes
from .entries import is_directory
from .file_list import FileList
from .folder import IMAGE_SUFFIXES, Found
from .tar_files import TarFile
from .tar_folder import compressed_names, file_names, tar_names, tar_status
from .tar_index import TarIndex
from .tar_layouts import LABEL_SUFFIX, TarImage, check_layout, labelled_images
from .tar_members import Member, tar_members


def write_index(root: Path, strip: int = 0, title: str = "") -> list[str]:
    """Write the index of the tar files in a folder, with a progress bar of their bytes.

    Args:
        root: The folder.
        strip: As in ``index_tar_files``, whose errors it raises.
        title: Title of the progress bar; by default the folder.

    Returns:
        Lines that describe the content: its size, and ignored members.
    """
    total = sum(path.stat().st_size for path in root.glob("*.tar"))
    with tqdm(total=total, desc=f"index {title or root}", unit="B", unit_scale=True) as bar:

        def advance(done: int) -> None:
            bar.update(done - bar.n)

        index = index_tar_files(root, strip, advance)
    index.write(root)
    images, classes, tars = len(index.ends), int((index.counts > 0).sum()), len(index.tars)
    return [f"{images} images in {classes} classes, {tars} tar files", *index.ignored]


def index_tar_files(root: Path, strip: int = 0, progress: Callable[[int], None] = lambda _: None) -> TarIndex:
    """List the images of the tar files in a folder.

    Images are in class folders, at any depth, or beside a ``.cls`` file with their label, as WebDataset has them. The
    rules for class folders are those of ``scan_folder``.

    Args:
        root: The folder.
        strip: Leading folders to remove from the names in the tar files.
        progress: Is called with the number of bytes read so far.

    Raises:
        UserError: The tar files can't be used, see ``tar_members``; there are neither class folders nor labels; a class
            or a label has no image; a file is empty or there twice.
    """
    listed = file_names(root)
    names = tar_names(listed)
    if not names:
        raise UserError(f"{root} has no files that end in .tar{_no_tar_hint(root, listed)}")
    found, content = Found(str(root)), _Content()
    tars, done = [], 0
    for number, name in enumerate(names):
        tars.append(tar_status(root / name))
        for member in tar_members(root / name, strip, partial(_after, progress, done)):
            content.add(member, number, found)
        done += tars[-1].size
        progress(done)
    if content.labels:
        images = labelled_images(root, names, content.labels, content.all_images())
        found.raise_problems([])
        return _pack(tars, tuple(images), tuple(found.ignored()), images, labels=True)
    images = content.classes
    found.others += [image.path for image in content.flat] if images else []
    check_layout(root, images, content.flat, found.others, len(names))
    folders = order_classes(sorted(images), None, root)
    _check_repeated(root, images, names)
    found.raise_problems([composed(folder) for folder in folders.values() if not images[folder]])
    return _pack(tars, tuple(folders.values()), tuple(found.ignored()), images)


def _after(progress: Callable[[int], None], done: int, end: int) -> None:
    progress(done + end)


class _Content:
    """The members of tar files by their use.

    Attributes:
        classes: The images in folders, by the first folder.
        flat: The images without a folder.
        labels: The ``.cls`` files.
    """

    def __init__(self):
        self.classes: dict[str, list[TarImage]] = {}
        self.flat: list[TarImage] = []
        self.labels: list[TarImage] = []

    def all_images(self) -> list[TarImage]:
        """Return all images."""
        return [*self.flat, *(image for images in self.classes.values() for image in images)]

    def add(self, member: Member, number: int, found: Found) -> None:
        """Add a member of tar file ``number`` to its list, or to ``found``."""
        parts = member.name.split("/")
        folders = parts if member.is_folder else parts[:-1]
        hidden = next((i for i, part in enumerate(folders) if part.startswith(".")), None)
        if hidden is not None:
            name = "/".join(folders[: hidden + 1])
            if name not in found.hidden:
                found.hidden.append(name)
            return
        own = self.classes.setdefault(folders[0], []) if folders else self.flat
        if member.is_folder:
            return
        entry = TarImage("/".join(folders), parts[-1], number, member.offset, member.size)
        name = parts[-1].lower()
        if name.startswith(".") or not name.endswith((*IMAGE_SUFFIXES, LABEL_SUFFIX)):
            found.others.append(member.name)
        elif name.endswith(LABEL_SUFFIX):
            self.labels.append(entry)
        elif member.size == 0:
            found.empty.append(member.name)
        else:
            own.append(entry)


def _no_tar_hint(root: Path, listed: list[str]) -> str:
    """Return a hint for a folder without tar files: compressed ones, or folders with tar files."""
    if compressed := compressed_names(listed):
        return f"; {shorten(compressed)}: unpack compressed files first"
    inner = [f"{name}/" for name in listed if is_directory(root / name) and tar_names(file_names(root / name))]
    return f"; move the tar files of {shorten(inner)} into it" if inner else ""


def _check_repeated(root: Path, images: dict[str, list[TarImage]], tars: list[str]) -> None:
    """Sort the images; raise UserError if one is there twice: in folders, one would replace the other."""
    repeated = []
    for members in images.values():
        members.sort()
        for a, b in zip(members, members[1:]):  # noqa: B905, RUF007
            if a[:2] == b[:2]:
                repeated.append(f"{a.folder}/{a.name} in {tars[a.number]} and {tars[b.number]}")
    if repeated:
        raise UserError(f"{root}: images with the same name: {shorten(repeated)}; remove or rename one of them")


def _pack(
    tars: list[TarFile],
    folders: tuple[str, ...],
    ignored: tuple[str, ...],
    images: dict[str, list[TarImage]],
    labels: bool = False,
) -> TarIndex:
    def groups() -> Iterator[list[str]]:
        for folder in folders:
            yield [image.path for image in images[folder]]

    files = FileList.of("", groups())
    ordered = [image for folder in folders for image in images[folder]]
    return TarIndex(
        tuple(tars),
        folders,
        ignored,
        labels,
        files.names,
        files.ends,
        np.array([len(images[folder]) for folder in folders], np.int64),
        np.array([image.number for image in ordered], np.int32),
        np.array([image.offset for image in ordered], np.int64),
        np.array([image.size for image in ordered], np.int64),
    )
