"""Write scikit-learn's handwritten digits as an image folder: python tools/make_digits.py demo/digits.

The data set has 1,797 scans of 8 x 8 pixels in ten classes (the test part of the UCI Optical Recognition of Handwritten
Digits data set). Every fifth image of a class goes to val/, the others to train/.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from msg_ms.cli import path_argument, run_command_line
from msg_ms.errors import UserError
from msg_ms.files import new_folder

VAL_EVERY = 5


def main() -> None:
    """Write the data set, unless the folder already exists."""
    parser = argparse.ArgumentParser(description="Write scikit-learn's handwritten digits as train/ and val/ folders.")
    parser.add_argument("folder", type=path_argument, help="folder to create")
    folder: Path = parser.parse_args().folder
    if (folder / "train").is_dir() and (folder / "val").is_dir():
        print(f"{folder} already exists")
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and has no train/ and val/; name a new folder")
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError("scikit-learn, which contains the digits, is missing: pip install 'msg-ms[demo]'") from None
    digits = load_digits()
    with new_folder(folder) as filling:
        counts = {part: write_images(digits, filling, part) for part in ("train", "val")}
    print(f"{folder}: {counts['train']} images to train on, {counts['val']} to evaluate on")


def write_images(digits, folder: Path, part: str) -> int:
    """Write one part as PNG files in class folders and return the number of images."""
    written = 0
    for label in range(10):
        target = folder / part / str(label)
        target.mkdir(parents=True)
        for n, index in enumerate(np.flatnonzero(digits.target == label)):
            if (n % VAL_EVERY == 0) == (part == "val"):
                pixels = np.minimum(digits.images[index] * 16, 255).astype(np.uint8)  # grey levels from 0 to 16
                (target / f"{index:04d}.png").write_bytes(cv2.imencode(".png", pixels)[1])  # imwrite hides a full disk
                written += 1
    return written


if __name__ == "__main__":
    run_command_line(main)
