"""The members of uncompressed tar files, with their offsets; everything else is refused in words."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ...errors import UserError, printable
from ...files import head_of_file

_COMPRESSED = (
    (b"\x1f\x8b", "gzip", "gzip -d"),
    (b"BZh", "bzip2", "bzip2 -d"),
    (b"\xfd7zXZ\0", "xz", "xz -d"),
    (b"\x28\xb5\x2f\xfd", "zstd", "zstd -d"),
    (b"\x04\x22\x4d\x18", "lz4", "lz4 -d"),
    (b"PK\x03\x04", "zip", "unzip, then tar"),
)
_LINKS = {tarfile.LNKTYPE: "a hard link", tarfile.SYMTYPE: "a symbolic link"}
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_SUPPORTED = "only uncompressed tar files with regular files can be read by offset"
_AGAIN = "copy or write it again"


def compression_of(head: bytes) -> str:
    """Return the name of the program that compressed a file with this beginning; empty if none did."""
    return next((kind for magic, kind, _ in _COMPRESSED if head.startswith(magic)), "")


class Member(NamedTuple):
    """A regular file or a folder in a tar file.

    Attributes:
        name: Its path, without ``.`` and empty parts.
        is_folder: Whether it is a folder.
        offset: Where its content begins, in bytes.
        size: Bytes of its content.
    """

    name: str
    is_folder: bool
    offset: int
    size: int


def tar_members(path: Path, strip: int = 0, progress: Callable[[int], None] = lambda _: None) -> Iterator[Member]:
    """Yield the regular files and folders of a tar file, in its order; GNU's and POSIX's long names are read.

    Args:
        path: The tar file.
        strip: Leading parts to remove from the names; members with fewer parts are left out.
        progress: Is called with the number of bytes up to the end of each member.

    Raises:
        UserError: The file is compressed, damaged or incomplete, or holds links, sparse files or devices.
    """
    head = head_of_file(path, 512)
    if head is None:
        raise UserError(f"{path} does not exist")
    for magic, kind, remedy in _COMPRESSED:
        if head.startswith(magic):
            raise UserError(f"{path} is compressed ({kind}), but {_SUPPORTED}: unpack it ({remedy})")
    if not head:
        raise UserError(f"{path} is empty; {_AGAIN}")
    try:
        with path.open("rb") as file:
            yield from _read(path, file, strip, progress)
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror or error}") from None


def _read(path: Path, file: BinaryIO, strip: int, progress: Callable[[int], None]) -> Iterator[Member]:
    try:
        archive = tarfile.TarFile(fileobj=file, mode="r", encoding="utf-8", errors="surrogateescape")
    except (tarfile.TarError, ValueError) as error:
        raise UserError(f"{path} is not a tar file ({printable(str(error), 100)}); {_SUPPORTED}") from None
    while (info := _next(archive, path)) is not None:
        archive.members.clear()  # type: ignore[attr-defined]  # it keeps a kilobyte for each member
        _check_kind(path, info)
        progress(archive.offset)
        name = "/".join(_parts(path, info.name)[strip:])
        if name:
            yield Member(name, info.isdir(), info.offset_data, info.size)
    _check_end(path, file, archive.offset)


def _next(archive: tarfile.TarFile, path: Path) -> tarfile.TarInfo | None:
    if not archive.offset:  # only zeros: Python 3.10.0 would seek to byte -1
        return None
    try:
        info = archive.next()
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        reason = printable(str(error), 100)
        raise UserError(f"{path} is damaged or incomplete after byte {archive.offset:,} ({reason}); {_AGAIN}") from None
    if info is not None and info.size < 0:
        raise UserError(f"{path} is damaged at byte {info.offset:,}; {_AGAIN}")
    return info


def _check_kind(path: Path, info: tarfile.TarInfo) -> None:
    """Raise UserError unless a member is a regular file or a folder."""
    shown = printable(info.name, 200)
    if info.type in _LINKS:
        remedy = "write the images themselves (tar --dereference --hard-dereference)"
        raise UserError(f"{path}: {shown} is {_LINKS[info.type]}, but {_SUPPORTED}: {remedy}")
    if info.issparse():
        raise UserError(f"{path}: {shown} is a sparse file, but {_SUPPORTED}: write it without --sparse")
    if info.type not in _PLAIN and not info.isdir():
        raise UserError(f"{path}: {shown} is a device, a pipe or of an unknown type, but {_SUPPORTED}: leave it out")


def _parts(path: Path, name: str) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise UserError(f"{path}: the name {printable(name, 200)!r} is not a path below a folder; rename the file")
    return parts


def _check_end(path: Path, file: BinaryIO, end: int) -> None:
    """Check that zeros alone follow the last member: tarfile stops without an error at a damaged header."""
    file.seek(end)
    block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise UserError(
            f"{path} ends at byte {end + len(block):,} without the zeros that close a tar file: it is incomplete; "
            f"{_AGAIN}"
        )
    if block.strip(b"\0"):
        raise UserError(f"{path} is damaged at byte {end:,}; {_AGAIN}")
    while chunk := file.read(1 << 20):
        if chunk.strip(b"\0"):
            raise UserError(f"{path} has data behind its end at byte {end:,}: join tar files with tar --concatenate")
