"""Write the index of existing tar files: python tools/index_tar_files.py <folder with tar files>...

Training and evaluation read images in uncompressed tar files by their offsets, which the index holds. In the tar files,
images are in class folders: n01440764/n01440764_10026.JPEG.
"""

from __future__ import annotations

import argparse

from msg_ms.cli import path_argument, run_command_line
from msg_ms.data.images.entries import is_directory
from msg_ms.data.images.tar_index import INDEX, check_replaceable
from msg_ms.data.images.tar_scan import write_index
from msg_ms.errors import UserError


def main() -> None:
    """Index each folder; an index that is there is replaced."""
    parser = argparse.ArgumentParser(description="Write the index of the tar files in each folder.")
    parser.add_argument("folders", nargs="+", type=path_argument, metavar="FOLDER", help="such as <imagenet>/train")
    parser.add_argument(
        "--strip-components",
        type=int,
        default=0,
        metavar="N",
        help="ignore N leading folders of each name",
    )
    args = parser.parse_args()
    if args.strip_components < 0:
        raise UserError(f"--strip-components {args.strip_components}: must be at least 0")
    for folder in args.folders:
        if not is_directory(folder):
            raise UserError(f"{folder} is not a directory; name the folder that holds the tar files")
        check_replaceable(folder / INDEX)  # before minutes of reading
    for folder in args.folders:
        content, *ignored = write_index(folder, args.strip_components)
        print(f"{folder}: {content}", *ignored, sep="\n  ")


if __name__ == "__main__":
    run_command_line(main)
