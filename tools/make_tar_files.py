"""Write class folders as tar files with an index: python tools/make_tar_files.py <imagenet> <new folder>.

The new folder holds train/ and val/ with files such as train-000000.tar, and works as --data-path. Equal images make
equal files: names are sorted, and owners and times are left out. Any tar program and WebDataset can read them.
"""

from __future__ import annotations

import argparse
import io
import os
import tarfile
from pathlib import Path

from tqdm import tqdm

from msg_ms.cli import path_argument, run_command_line
from msg_ms.data.images.folder import ImageFolder, scan_folder
from msg_ms.data.images.splits import PARTS
from msg_ms.data.images.tar_scan import write_index
from msg_ms.errors import UserError
from msg_ms.files import new_folder


def main() -> None:
    """Write each part that the data set has."""
    parser = argparse.ArgumentParser(description="Write class folders as uncompressed tar files with an index.")
    parser.add_argument("folder", type=path_argument, help="holds train/ and val/ with one folder per class")
    parser.add_argument("output", type=path_argument, help="folder to create train/ and val/ in")
    parser.add_argument("--tar-size", type=int, default=1000, metavar="MB", help="megabytes per file (default: 1000)")
    args = parser.parse_args()
    if args.tar_size < 1:
        raise UserError(f"--tar-size {args.tar_size}: must be at least 1")
    parts = [part for part in PARTS if (args.folder / part).is_dir()]
    if not parts:
        raise UserError(f"{args.folder} holds neither train/ nor val/; name the folder of the data set")
    for part in parts:
        target = args.output / part
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise UserError(f"{target} exists; name a new folder")
    folders = [scan_folder(args.folder / part) for part in parts]
    for part, folder in zip(parts, folders, strict=True):
        for line in folder.warnings:
            print(line)
        with new_folder(args.output / part) as filling:
            write_tar_files(folder, filling, part, args.tar_size * 10**6)
            content, *_ = write_index(filling, title=part)  # reads the files again, which checks them
        print(f"{args.output / part}: {content}")


def write_tar_files(folder: ImageFolder, target: Path, part: str, size: int) -> None:
    """Write all images as ``<part>-000000.tar``, ... of ``size`` bytes and at most one image more."""
    index, number = 0, 0
    with tqdm(total=len(folder), desc=f"write {part}", unit="image") as bar:
        while index < len(folder):
            with (target / f"{part}-{number:06d}.tar").open("wb") as file:
                with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
                    while index < len(folder) and archive.offset < size:
                        add_image(archive, folder, index)
                        index += 1
                        bar.update()
                file.flush()
                os.fsync(file.fileno())
            number += 1


def add_image(archive: tarfile.TarFile, folder: ImageFolder, index: int) -> None:
    """Append an image to a tar file."""
    try:
        content = folder.files.read(index)
    except OSError as error:
        raise UserError(f"can't read {folder.files[index]}: {error.strerror}") from None
    info = tarfile.TarInfo(folder.files.name(index))  # mode 644, owner and time 0
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))
    archive.members.clear()  # it keeps a kilobyte for each member


if __name__ == "__main__":
    run_command_line(main)
