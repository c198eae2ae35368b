"""Decode each image of a data set: python tools/check_dataset.py <folder with train/ and val/, or a COCO data set>.

Reports problems of the folders and annotations, decodes all files in parallel, and lists the files that fail with the
reason. Exits with status 1 if there is a problem.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from msg_ms.cli import path_argument, run_command_line
from msg_ms.data.coco.layouts import has_coco_files
from msg_ms.data.coco.split import TRAIN, VAL, CocoSplit, check_same_categories, for_training, read_split
from msg_ms.data.images.entries import is_directory
from msg_ms.data.images.file_list import FileList
from msg_ms.data.images.folder import ImageFolder
from msg_ms.data.images.image_list import scan_list
from msg_ms.data.images.splits import check_same_classes, known_classes, scan_images
from msg_ms.data.pixels.decode import decode
from msg_ms.data.pixels.image_files import failure_reason, size_difference
from msg_ms.errors import UserError
from msg_ms.files import head_of_file

CHUNK = 64  # files per task


class Part(NamedTuple):
    """The images of one part of a data set.

    Attributes:
        name: Its folder.
        content: The numbers of images and others, in words.
        files: The images.
        sizes: (height, width) of each image; None if any size is right.
        warnings: Lines to print.
    """

    name: str
    content: str
    files: FileList
    sizes: tuple[tuple[int, int], ...] | None
    warnings: tuple[str, ...]


def main() -> int:
    """Check the folders and files of one data set; the status is 1 if there is a problem."""
    parser = argparse.ArgumentParser(description="Check the folders of a data set and decode each image.")
    parser.add_argument(
        "data_path",
        type=path_argument,
        help="folder of train/ and val/ (class folders or tar files), or of annotations/",
    )
    parser.add_argument("--class-index", default="", metavar="FILE", help="as DATA.CLASS_INDEX")
    parser.add_argument("--val-list", default="", metavar="FILE", help="as DATA.VAL_LIST")
    parser.add_argument("--boxes", action="store_true", help="COCO data: need no masks, as MODEL.RCNN.MASKS False")
    parser.add_argument("--list", type=path_argument, default=Path("bad_files.txt"), help="where to list bad files")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: one per core)")
    args = parser.parse_args()

    check_own_list(args.list, args.data_path)  # before an hour of decoding
    sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be valid text
    if not is_directory(args.data_path):
        raise UserError(f"{args.data_path} is not a directory; name the folder of the data set")
    if has_coco_files(args.data_path):
        if args.class_index or args.val_list:
            raise UserError("--class-index and --val-list are for class folders, not for COCO data sets")
        parts, problems = scan_coco(args.data_path, not args.boxes)
    else:
        if args.boxes:
            raise UserError("--boxes is for COCO data sets, not for class folders")
        parts, problems = scan(args.data_path, args.class_index, args.val_list)
    for part in parts:
        print(f"{part.name}: {part.content}")
        for warning in part.warnings:
            print(f"  {warning}")
    for problem in problems:
        print(f"problem: {problem}")

    bad = [line for part in parts for line in decode_all(part, max(1, args.workers))]
    if bad:
        try:
            args.list.write_text("".join(f"{line}\n" for line in bad), encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise UserError(f"can't write {args.list}: {error.strerror}") from None
        print(f"{len(bad)} files can't be decoded or have the wrong size; they are listed in {args.list}")
    elif not problems:
        print("no problems found")
    return 1 if bad or problems else 0


def check_own_list(path: Path, data_path: Path) -> None:
    """Raise UserError if a file exists that does not list files of this data set."""
    prefix = os.fsencode(f"{data_path}{os.sep}")
    head = head_of_file(path, len(prefix))
    if head is not None and head != prefix:
        raise UserError(f"{path} exists and does not list files of {data_path}: name another file with --list")


def attempt(check: Callable[[], Any], results: list, problems: list[str]) -> None:
    """Append the result of a check, or the error that it ends with."""
    try:
        result = check()
        results.extend([] if result is None else [result])
    except UserError as error:
        problems.append(str(error))


def scan(data_path: Path, class_index: str, val_list: str) -> tuple[list[Part], list[str]]:
    """Return the readable ones of ``train/`` and ``val/``, and the problems of both."""
    folders: list[ImageFolder] = []
    problems: list[str] = []

    def scan_val() -> ImageFolder:
        if not val_list:
            return scan_images(data_path / "val", class_index)
        classes = known_classes(data_path, class_index)
        return scan_list(data_path / "val", val_list, classes, len(classes) if classes else sys.maxsize)

    attempt(lambda: scan_images(data_path / "train", class_index), folders, problems)
    attempt(scan_val, folders, problems)
    if len(folders) == 2:
        attempt(lambda: check_same_classes(*folders), folders, problems)
    parts = []
    for folder in folders:
        content = f"{len(folder)} images in {len(folder.classes or set(folder.labels))} classes"
        parts.append(Part(str(folder.root), content, folder.files, None, folder.warnings))
    return parts, problems


def scan_coco(data_path: Path, masks: bool) -> tuple[list[Part], list[str]]:
    """Return the readable ones of ``train2017/`` and ``val2017/``, and the problems of both."""
    splits: list[CocoSplit] = []
    problems: list[str] = []
    for name in (TRAIN, VAL):
        attempt(lambda name=name: read_split(data_path, name, name == TRAIN, masks), splits, problems)
    if len(splits) == 2:
        attempt(lambda: check_same_categories(*splits), [], problems)
    used: list[CocoSplit] = []  # the images that training uses, for its warnings
    if splits and splits[0].images_dir.name == TRAIN:
        attempt(lambda: for_training(splits[0]), used, problems)
    parts = []
    for split in splits:
        content = f"{len(split)} images, {len(split.labels)} objects in {len(split.class_names)} classes"
        files = FileList.of(str(split.images_dir), [list(split.files)])
        sizes = tuple(split.size(i) for i in range(len(split)))
        warnings = used[0].warnings if used and split is splits[0] else split.warnings
        parts.append(Part(str(split.images_dir), content, files, sizes, warnings))
    return parts, problems


def decode_all(part: Part, workers: int) -> list[str]:
    """Return a line ``<file><tab><reason>`` for each file that cannot be decoded or has the wrong size."""
    chunks = [range(i, min(i + CHUNK, len(part.files))) for i in range(0, len(part.files), CHUNK)]
    bad: list[str] = []
    with (
        ProcessPoolExecutor(workers, initializer=set_part, initargs=(part,)) as pool,
        tqdm(total=len(part.files), desc=part.name, unit="image") as bar,
    ):
        for chunk, lines in zip(chunks, pool.map(bad_lines, chunks), strict=True):
            bad += lines
            bar.update(len(chunk))
            bar.set_postfix(bad=len(bad))
    return bad


def set_part(part: Part) -> None:
    """Keep the part that this process checks: with a million files it is too large for every task."""
    global checked
    checked = part


def bad_lines(indices: range) -> list[str]:
    """Return the lines of ``decode_all`` for some files of the part."""
    files, sizes, lines = checked.files, checked.sizes, []
    for i in indices:
        try:
            content = files.read(i)
            size = decode(content).shape[:2]
            if sizes is not None and size != sizes[i]:
                lines.append(f"{files[i]}\t{size_difference(content, size, sizes[i])}")
        except Exception as error:
            lines.append(f"{files[i]}\t{failure_reason(error)}")
    return lines


if __name__ == "__main__":
    run_command_line(main)
