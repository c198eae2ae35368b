"""Decode each image of a data set: python tools/check_dataset.py <folder with train/ and val/>.

Reports problems of the folders, decodes all files in parallel, and lists the files that fail with the reason. Exits
with status 1 if there is a problem.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tqdm import tqdm

from msg_ms.cli import run_command_line
from msg_ms.data.decode import decode
from msg_ms.data.folder import ImageFolder, scan_folder
from msg_ms.data.image_list import scan_list
from msg_ms.data.pipeline import failure_reason
from msg_ms.data.splits import check_same_classes, known_classes
from msg_ms.errors import UserError

CHUNK = 64  # files per task


def main() -> int:
    """Check the folders and files of one data set; the status is 1 if there is a problem."""
    parser = argparse.ArgumentParser(description="Check the folders of a data set and decode each image.")
    parser.add_argument("data_path", type=Path, help="folder that holds train/ and val/")
    parser.add_argument("--class-index", default="", metavar="FILE", help="as DATA.CLASS_INDEX")
    parser.add_argument("--val-list", default="", metavar="FILE", help="as DATA.VAL_LIST")
    parser.add_argument("--list", type=Path, default=Path("bad_files.txt"), help="where to list bad files")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: one per core)")
    args = parser.parse_args()

    sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be valid text
    folders, problems = scan(args.data_path, args.class_index, args.val_list)
    for folder in folders:
        classes = len(folder.classes or set(folder.labels))
        print(f"{folder.root}: {len(folder)} images in {classes} classes")
        for warning in folder.warnings:
            print(f"  {warning}")
    for problem in problems:
        print(f"problem: {problem}")

    bad = [line for folder in folders for line in decode_all(folder, max(1, args.workers))]
    if bad:
        try:
            args.list.write_text("".join(f"{line}\n" for line in bad), encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise UserError(f"can't write {args.list}: {error.strerror}") from None
        print(f"{len(bad)} files can't be decoded; they are listed in {args.list}")
    elif not problems:
        print("no problems found")
    return 1 if bad or problems else 0


def scan(data_path: Path, class_index: str, val_list: str) -> tuple[list[ImageFolder], list[str]]:
    """Return the readable ones of ``train/`` and ``val/``, and the problems of both."""
    folders, problems = [], []

    def attempt(check: Callable[[], ImageFolder | None]) -> None:
        try:
            result = check()
            folders.extend([] if result is None else [result])
        except UserError as error:
            problems.append(str(error))

    def scan_val() -> ImageFolder:
        if not val_list:
            return scan_folder(data_path / "val", class_index)
        classes = known_classes(data_path, class_index)
        return scan_list(data_path / "val", val_list, classes, len(classes) if classes else sys.maxsize)

    attempt(lambda: scan_folder(data_path / "train", class_index))
    attempt(scan_val)
    if len(folders) == 2:
        attempt(lambda: check_same_classes(*folders))
    return folders, problems


def decode_all(folder: ImageFolder, workers: int) -> list[str]:
    """Return a line ``<file><tab><reason>`` for each file that cannot be decoded."""
    chunks = [folder.files[i : i + CHUNK] for i in range(0, len(folder.files), CHUNK)]
    bad: list[str] = []
    with ProcessPoolExecutor(workers) as pool, tqdm(total=len(folder), desc=str(folder.root), unit="image") as bar:
        for lines in pool.map(bad_lines, chunks):
            bad += lines
            bar.update(min(CHUNK, len(folder) - bar.n))
            bar.set_postfix(bad=len(bad))
    return bad


def bad_lines(files: tuple[str, ...]) -> list[str]:
    """Return the lines of ``decode_all`` for some files."""
    lines = []
    for file in files:
        try:
            decode(Path(file).read_bytes())
        except Exception as error:
            lines.append(f"{file}\t{failure_reason(error)}")
    return lines


if __name__ == "__main__":
    run_command_line(main)
