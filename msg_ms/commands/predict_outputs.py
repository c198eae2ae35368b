"""The outputs of predict: a table or JSON, contact sheets and drawings."""

from __future__ import annotations

import argparse
import codecs
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..config import Config
from ..engine.predictor import DrawingPredictor, Prediction, Predictor, Unreadable
from ..errors import UserError
from ..files import atomic_write, head_of_file, readable
from ..visualize.attention import stack_rows
from ..visualize.contact_sheet import as_tile, write_png, write_sheet

STANDARD_OUTPUT = "-"


def common_folder(files: Sequence[Path]) -> Path:
    """Return the folder that holds all files."""
    return Path(os.path.commonpath([file.resolve().parent for file in files]))


def drawing_file(folder: Path, common: Path, file: Path) -> Path:
    """Return where the drawing of an image goes: the same tree as the images below ``common``."""
    relative = file.resolve().relative_to(common)
    return folder / relative.with_name(relative.name + ".png")  # the suffix stays: a.jpg and a.png may be in one folder


def is_folder(path: Path | None) -> bool:
    """Return whether --show-messages names a folder, which may not exist yet."""
    return path is not None and (path.is_dir() or not path.suffix)


JSON_HEAD = b'{\n  "model": "'


def check_own_json(path: Path) -> None:
    """Raise UserError if a file exists that this command did not write, so that it must not be replaced."""
    head = head_of_file(path, len(JSON_HEAD))
    if head is not None and head != JSON_HEAD:
        raise UserError(f"--json {path}: exists and holds no predictions of this program; name another file")


class Outputs:
    """Collected results: table or JSON, a contact sheet, and larger drawings.

    Args:
        args: The flags of the command.
        predictor: Describes and draws the results.
        files: All files.
    """

    def __init__(self, args: argparse.Namespace, predictor: Predictor, files: Sequence[Path]):
        self.args, self.predictor, self.common = args, predictor, common_folder(files)
        self.records: list[dict[str, Any]] = []
        self.unreadable: list[str] = []
        self.tiles: list[np.ndarray] = []
        self.captions: list[str] = []
        self.rows: list[np.ndarray] = []

    def add(self, result: Prediction) -> str:
        """Record a prediction, draw the requested images, and return its line of the table."""
        args, predictor = self.args, self.predictor
        assert result.file is not None  # a command has no images from memory
        self.records.append({"file": readable(result.file), **predictor.record(result)})
        if args.picture is not None:
            picture, caption = predictor.picture(result)
            self.tiles.append(as_tile(picture, predictor.tile))
            self.captions.append(caption)
        if args.show_messages is not None:
            drawing = cast(DrawingPredictor, predictor).drawing(result)
            if is_folder(args.show_messages):
                write_png(drawing_file(args.show_messages, self.common, result.file), drawing)
            else:
                self.rows.append(drawing)
        return f"{result.file}: {predictor.text(result)}"

    def add_unreadable(self, result: Unreadable) -> str:
        """Record a file without prediction and return its line of the table."""
        self.unreadable.append(f"{result.file} ({result.reason})")
        self.records.append({"file": readable(result.file), "error": readable(result.reason)})
        return f"{result.file}: can't be read: {result.reason}"

    def write(self, config: Config, checkpoint: Path) -> None:
        """Write JSON, contact sheet and stacked drawings, and print the path of each file."""
        args = self.args
        if args.json:
            name = readable(config.model.name)
            content = {"model": name, "checkpoint": readable(checkpoint), "images": self.records}
            ascii_only = args.json == STANDARD_OUTPUT and codecs.lookup(sys.stdout.encoding).name != "utf-8"
            text = json.dumps(content, indent=2, ensure_ascii=ascii_only) + "\n"
            if args.json == STANDARD_OUTPUT:
                sys.stdout.write(text)
            else:
                with atomic_write(Path(args.json)) as temporary:
                    temporary.write_text(text, encoding="utf-8")
                self.report(args.json)
        if self.tiles:
            write_sheet(args.picture, self.tiles, self.captions, self.predictor.tile)
            self.report(args.picture)
        if self.rows:
            write_png(args.show_messages, stack_rows(self.rows))
        if args.show_messages is not None and len(self.records) > len(self.unreadable):
            self.report(args.show_messages)

    def report(self, path: Path | str) -> None:
        """Print the path of a written file."""
        print(f"wrote {path}", file=sys.stdout if self.args.json != STANDARD_OUTPUT else sys.stderr)
