"""The layouts of a part of a data set: class folders, or tar files with an index."""

from __future__ import annotations

from pathlib import Path

from ...errors import UserError, shorten
from .folder import class_folders, entries_of, is_directory, is_folder, scan_folder
from .image_folder import ImageFolder
from .tar_folder import compressed_names, scan_tar_files, tar_classes, tar_names
from .tar_index import COMMAND, INDEX


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
