"""Measure the list of a data set's files: python benchmarks/scan.py --files 1331000.

It makes that many links to one image in 1,000 class folders of train/ and val/, lists them as training does, and
compares their names as several ranks do. The seconds are CPU time and elapsed time, the memory is that of the list.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from msg_ms.cli import run_command_line
from msg_ms.config import load_config
from msg_ms.tasks.classification import ClassificationTask

CLASSES, VALIDATION = 1000, 26  # one image of 26 is for validation, as in ImageNet
LINKS = 20_000  # to one file; file systems allow 32,000 to 65,000


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds and memory of listing many files.")
    parser.add_argument("--files", type=int, default=133_100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the files are made, default: the temporary folder")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(list_files(args.child)))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        make_files(Path(folder), args.files)
        for _ in range(args.rounds):
            line = [sys.executable, __file__, "--child", folder]
            done = subprocess.run(line, capture_output=True, text=True, check=True)
            print(done.stdout.splitlines()[-1], flush=True)


def make_files(folder: Path, count: int) -> None:
    """Make links to small images: ``train/n<class>/n<class>_<number>.JPEG``, and ``val``."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        label, place = number % CLASSES, number // CLASSES
        part = folder / ("val" if place % VALIDATION == VALIDATION - 1 else "train") / f"n{label:08d}"
        if place in (0, VALIDATION - 1):
            part.mkdir(parents=True, exist_ok=True)
        if number % LINKS == 0:
            source = folder / f"{number}.JPEG"
            pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), np.uint8)
            Image.fromarray(pixels).save(source)
        os.link(source, part / f"n{label:08d}_{place:05d}.JPEG")


def list_files(folder: str) -> dict[str, float]:
    """Return the figures of one process."""
    memory, usage, begin = resident(), resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    task = ClassificationTask(load_config(None, DATA__DATA_PATH=folder))
    train, val = task.folders
    listed = time.perf_counter()
    checksum = 0
    for piece in task.fingerprint():
        checksum = zlib.crc32(piece, checksum)
    end, after = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    return {
        "files": len(train) + len(val),
        "list_s": round(listed - begin, 3),
        "compare_s": round(end - listed, 3),
        "cpu_s": round(after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime, 3),
        "memory_mb": round(resident() - memory, 1),
    }


def resident() -> float:
    """Return this process's memory in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


if __name__ == "__main__":
    run_command_line(main)
