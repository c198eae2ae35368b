"""Decode each image of a data set: python tools/check_dataset.py <folder with train/ and val/>.

Reports problems of the folders, decodes all files in parallel, and lists the files that fail with the reason. Exits
with status 1 if there is a problem.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tqdm import tqdm

from msg_ms.cli import run_command_line
from msg_ms.data.decode import decode
from msg_ms.data.folder import ImageFolder, scan_folder
from msg_ms.data.splits import check_same_classes
from msg_ms.errors import UserError

CHUNK = 64  # files per task


def main() -> int:
    """Check the folders and files of one data set; the status is 1 if there is a problem."""
    parser = argparse.ArgumentParser(description="Check the folders of a data set and decode each image.")
    parser.add_argument("data_path", type=Path, help="folder that holds train/ and val/")
    parser.add_argument("--list", type=Path, default=Path("bad_files.txt"), help="where to list bad files")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: one per core)")
    args = parser.parse_args()

    folders, problems = scan(args.data_path)
    for folder in folders:
        print(f"{folder.root}: {len(folder)} images in {len(folder.classes)} classes")
        for warning in folder.warnings:
            print(f"  {warning}")
    for problem in problems:
        print(f"problem: {problem}")

    bad = [line for folder in folders for line in decode_all(folder, max(1, args.workers))]
    if bad:
        try:
            args.list.write_text("".join(f"{line}\n" for line in bad), encoding="utf-8")
        except OSError as error:
            raise UserError(f"can't write {args.list}: {error.strerror}") from None
        print(f"{len(bad)} files can't be decoded; they are listed in {args.list}")
    elif not problems:
        print("no problems found")
    return 1 if bad or problems else 0


def scan(data_path: Path) -> tuple[list[ImageFolder], list[str]]:
    """Return the readable ones of ``train/`` and ``val/``, and the problems of both."""
    folders, problems = [], []
    for part in ("train", "val"):
        try:
            folders.append(scan_folder(data_path / part))
        except UserError as error:
            problems.append(str(error))
    if len(folders) == 2:
        try:
            check_same_classes(*folders)
        except UserError as error:
            problems.append(str(error))
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
            lines.append(f"{file}\t{error or type(error).__name__}")
    return lines


if __name__ == "__main__":
    run_command_line(main)
