"""List the images of tar files for their index; ``tools/index_tar_files.py`` and ``tools/make_tar_files.py`` do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ...errors import UserError, shorten
from .class_files import composed, order_classes
from .file_list import FileList
from .folder import IMAGE_SUFFIXES, Found
from .tar_files import TarFile
from .tar_folder import compressed_names, file_names, tar_names, tar_status
from .tar_index import TarIndex
from .tar_members import Member, tar_members


class _Image(NamedTuple):
    """An image in a tar file; its first two fields are the order of torchvision."""

    folder: str
    name: str
    number: int
    offset: int
    size: int


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
        index = index_tar_files(root, strip, lambda done: bar.update(done - bar.n))
    index.write(root)
    images, classes, tars = len(index.ends), len(index.folders), len(index.tars)
    return [f"{images} images in {classes} classes, {tars} tar files", *index.ignored]


def index_tar_files(root: Path, strip: int = 0, progress: Callable[[int], None] = lambda _: None) -> TarIndex:
    """List the images of the tar files in a folder.

    Images must be in class folders, at any depth. The rules are those of ``scan_folder``.

    Args:
        root: The folder.
        strip: Leading folders to remove from the names in the tar files.
        progress: Is called with the number of bytes read so far.

    Raises:
        UserError: The tar files can't be used, see ``tar_members``; there are no class folders; a class has no images;
            a file is empty or there twice.
    """
    listed = file_names(root)
    names = tar_names(listed)
    if not names:
        compressed = compressed_names(listed)
        hint = f"; {shorten(compressed)}: unpack compressed files first" if compressed else ""
        raise UserError(f"{root} has no files that end in .tar{hint}")
    found, images = Found(str(root)), {}
    tars, done = [], 0
    for number, name in enumerate(names):
        tars.append(tar_status(root / name))
        for member in tar_members(root / name, strip, lambda end, done=done: progress(done + end)):
            _sort_in(member, number, found, images)
        done += tars[-1].size
        progress(done)
    if not images:
        raise UserError(
            f"{root}: the tar files hold no class folders; images must be stored as <class>/<image>, such as "
            "n01440764/n01440764_10026.JPEG"
        )
    folders = order_classes(sorted(images), None, root)
    _check_repeated(root, images, names)
    found.raise_problems([composed(folder) for folder in folders.values() if not images[folder]])
    return _pack(tars, tuple(folders.values()), tuple(found.ignored()), images)


def _sort_in(member: Member, number: int, found: Found, images: dict[str, list[_Image]]) -> None:
    """Add a member to the images of its class, or to ``found``."""
    parts = member.name.split("/")
    folders = parts if member.is_folder else parts[:-1]
    hidden = next((i for i, part in enumerate(folders) if part.startswith(".")), None)
    if hidden is not None:
        name = "/".join(folders[: hidden + 1])
        if name not in found.hidden:
            found.hidden.append(name)
        return
    if folders:
        images.setdefault(folders[0], [])
    if member.is_folder:
        return
    if not folders or parts[-1].startswith(".") or not parts[-1].lower().endswith(IMAGE_SUFFIXES):
        found.others.append(member.name)
    elif member.size == 0:
        found.empty.append(member.name)
    else:
        images[folders[0]].append(_Image("/".join(folders), parts[-1], number, member.offset, member.size))


def _check_repeated(root: Path, images: dict[str, list[_Image]], tars: list[str]) -> None:
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
    tars: list[TarFile], folders: tuple[str, ...], ignored: tuple[str, ...], images: dict[str, list[_Image]]
) -> TarIndex:
    def groups() -> Iterator[list[str]]:
        for folder in folders:
            yield [f"{image.folder}/{image.name}" for image in images[folder]]

    files = FileList.of("", groups())
    ordered = [image for folder in folders for image in images[folder]]
    return TarIndex(
        tuple(tars),
        folders,
        ignored,
        files.names,
        files.ends,
        np.array([len(images[folder]) for folder in folders], np.int64),
        np.array([image.number for image in ordered], np.int32),
        np.array([image.offset for image in ordered], np.int64),
        np.array([image.size for image in ordered], np.int64),
    )
