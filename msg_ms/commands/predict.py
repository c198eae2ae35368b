"""Classify images and draw the attention of the MSG tokens; see docs/predict.md."""

from __future__ import annotations

import argparse
import codecs
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint import load_for_inference
from ..cli import config_from_arguments, model_parser, path_argument, require
from ..config import Config
from ..data.class_names import CLASSES_KEY, ClassName, class_order_warning, default_class_names, read_class_names
from ..data.folder import IMAGE_SUFFIXES
from ..engine.log import progress
from ..engine.runtime import start
from ..errors import UserError, shorten
from ..files import atomic_write, readable
from ..models.msg_transformer import MSGTransformer
from ..tasks import build_task
from ..tasks.predictor import Prediction, Predictor, Unreadable
from ..visualize.attention import draw_msg_attention, stack_rows
from ..visualize.contact_sheet import as_tile, check_ours, write_png, write_sheet

SUFFIXES = IMAGE_SUFFIXES  # files to find in folders
BATCH = 16  # default of --batch-size
MAX_SHEET, MAX_STACK = 500, 50  # images in one contact sheet, and in one PNG with attention
STANDARD_OUTPUT = "-"
CLASSES_HELP = """class names: a folder of class folders, or a text file with one name per line (default: those
stored in the checkpoint; for 1000 classes ImageNet's)"""
MESSAGES_HELP = """draw the attention of each stage's MSG tokens: one PNG with a row per image, or a folder with one PNG
per image"""


def main() -> None:
    """Classify the images and write the requested outputs."""
    args = parse_arguments()
    config = config_from_arguments(args)
    checkpoint = Path(require(config.model.resume, "--resume"))
    names = read_class_names(args.classes, config.model.num_classes, config.data.class_index) if args.classes else None
    files, unreadable = list_images(args.files)
    check_outputs(args, len(files))
    others = (Path(name) for name in (args.cfg, config.model.resume, config.data.class_index) if name)
    check_overwriting(args, files, (*files, *others))
    runtime = start(config, build_task, uses_data=False)
    model = runtime.task.build_model().set_train(False)
    lines, metadata = load_for_inference(model, checkpoint)
    stored = str(metadata.get(CLASSES_KEY, ""))
    for line in (*lines, *class_order_warning(names or [], stored)):
        print(line, file=sys.stderr)
    if args.show_messages is None:  # --show-messages needs the original parameters
        runtime.task.optimize_for_inference(model, strassen=True)
    names = names or default_class_names(config.model.num_classes, stored)

    batch = min(args.batch_size or BATCH, len(files))
    predictor = Predictor(model, config, batch, messages=args.show_messages is not None)
    outputs = Outputs(args, model, names, files)
    for folder in unreadable:
        line = outputs.add_unreadable(folder)
        if not args.json:
            print(line)
    for result, bar in progress(predictor.predict(files), len(files), "predict"):
        line = outputs.add_unreadable(result) if isinstance(result, Unreadable) else outputs.add(result)
        if not args.json:
            bar.write(line)
    outputs.write(config, checkpoint)
    if outputs.unreadable:
        count = len(files) + len(unreadable)
        raise UserError(f"{len(outputs.unreadable)} of {count} files can't be read: {shorten(outputs.unreadable)}")


def parse_arguments() -> argparse.Namespace:
    """Parse and check the command's flags."""
    parser = model_parser("Classify images with a trained model.")
    add = parser.add_argument
    add("--classes", type=path_argument, metavar="FOLDER|FILE", help=CLASSES_HELP)
    add("--top-k", type=int, default=5, metavar="N", help="number of predictions per image (default: 5)")
    add("--json", type=json_argument, metavar="FILE", help="write JSON instead of a table; - writes to standard output")
    add("--picture", type=path_argument, metavar="PNG", help="write a contact sheet with the predictions")
    add("--show-messages", type=path_argument, metavar="FOLDER|PNG", help=MESSAGES_HELP)
    add("files", nargs="+", type=path_argument, metavar="IMAGE|FOLDER", help="folders are searched recursively")
    args = parser.parse_args()
    if args.top_k < 1:
        raise UserError(f"--top-k {args.top_k}: must be at least 1")
    return args


def json_argument(text: str) -> str:
    """Return the value of --json with ``~`` expanded."""
    return text if text == STANDARD_OUTPUT else str(path_argument(text))


def list_images(paths: Sequence[Path]) -> tuple[list[Path], list[Unreadable]]:
    """Expand folders into the images below them, sorted by name.

    Hidden files and folders are ignored. Raises UserError if a folder has no images or no path exists.

    Returns:
        The images, and the folders that can't be read.
    """
    files: list[Path] = []
    unreadable: list[Unreadable] = []
    for path in paths:
        is_folder, before = os.path.isdir(path), len(unreadable)  # noqa: PTH112 (does not fail without permission)
        images = sorted(_images_below(path, unreadable)) if is_folder else [path]
        if not images and len(unreadable) > before:
            raise UserError(f"can't read the folder {unreadable[before].file}: {unreadable[before].reason}")
        if not images:
            raise UserError(f"{path} contains no images ({', '.join(SUFFIXES)})")
        files += images
    if not any(os.path.lexists(file) for file in files):
        raise UserError(f"no such file or folder: {shorten([str(file) for file in files])}")
    return files, unreadable


def _images_below(folder: Path, unreadable: list[Unreadable]) -> Iterator[Path]:
    def report(error: OSError) -> None:
        unreadable.append(Unreadable(Path(error.filename), error.strerror))

    seen = set()
    for root, folders, names in os.walk(folder, onerror=report, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if os.path.realpath(root) in seen:  # a symbolic link to a parent
            folders.clear()
            continue
        seen.add(os.path.realpath(root))
        for name in names:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                file = Path(root) / name
                if file.is_fifo():  # reading it would wait for a writer
                    unreadable.append(Unreadable(file, "not a regular file"))
                else:
                    yield file


def check_outputs(args: argparse.Namespace, count: int) -> None:
    """Raise UserError for an invalid file name or too many images in --json, --picture or --show-messages."""
    for flag, path, suffix in (
        ("--json", args.json if args.json != STANDARD_OUTPUT else None, ".json"),
        ("--picture", args.picture, ".png"),
        ("--show-messages", None if is_folder(args.show_messages) else args.show_messages, ".png"),
    ):
        if path is not None and Path(path).suffix.lower() != suffix:
            alternatives = {"--json": f", or be {STANDARD_OUTPUT}", "--show-messages": ", or be a folder"}
            raise UserError(f"{flag} {path}: must end in {suffix}{alternatives.get(flag, '')}")
    if args.picture is not None and count > MAX_SHEET:
        raise UserError(f"--picture: {count} images are too many for one contact sheet; the limit is {MAX_SHEET}")
    if args.show_messages is not None and not is_folder(args.show_messages) and count > MAX_STACK:
        raise UserError(
            f"--show-messages: {count} images are too many for one PNG; the limit is {MAX_STACK}, name a folder instead"
        )


def check_overwriting(args: argparse.Namespace, files: Sequence[Path], inputs: Sequence[Path]) -> None:
    """Raise UserError if an output would replace an input, another output, or a file that is not an output."""
    outputs = {"--json": args.json if args.json != STANDARD_OUTPUT else None, "--picture": args.picture}
    if args.show_messages is not None and not is_folder(args.show_messages):
        outputs["--show-messages"] = args.show_messages
    named = [(flag, os.path.realpath(path)) for flag, path in outputs.items() if path]
    if is_folder(args.show_messages):
        common = common_folder(files)
        targets = [drawing_file(args.show_messages, common, file) for file in files]
        named += [("--show-messages", os.path.realpath(path)) for path in targets]
        for target in targets:
            check_ours(target)
    known = {os.path.realpath(path): f"the input {path}" for path in (*inputs, args.classes) if path is not None}
    for flag, path in named:
        if path in known:
            raise UserError(f"{flag} would overwrite {known[path]}: name another file or folder")
        known[path] = f"the output of {flag}"


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


class Outputs:
    """Collected results: table or JSON, contact sheet and drawings of the attention."""

    def __init__(self, args: argparse.Namespace, model: MSGTransformer, names: list[ClassName], files: Sequence[Path]):
        self.args, self.model, self.names = args, model, names
        self.records: list[dict[str, Any]] = []
        self.unreadable: list[str] = []
        self.tiles: list[np.ndarray] = []
        self.captions: list[str] = []
        self.rows: list[np.ndarray] = []
        self.common = common_folder(files)

    def add_unreadable(self, result: Unreadable) -> str:
        """Record a file without prediction and return its line of the table."""
        self.unreadable.append(f"{result.file} ({result.reason})")
        self.records.append({"file": readable(result.file), "error": readable(result.reason)})
        return f"{result.file}: can't be read: {result.reason}"

    def add(self, result: Prediction) -> str:
        """Record a prediction, draw the requested images, and return its line of the table."""
        probabilities, names = result.probabilities, self.names
        best = [int(i) for i in np.argsort(-probabilities, kind="stable")[: self.args.top_k]]
        predictions = [
            {
                "label": i,
                "class": readable(names[i].folder),
                "name": readable(names[i].name),
                "probability": float(probabilities[i]),
            }
            for i in best
        ]
        self.records.append({"file": readable(result.file), "predictions": predictions})
        caption = f"{probabilities[best[0]]:.0%} {names[best[0]].short}"
        if self.args.picture is not None:
            self.tiles.append(as_tile(result.image))
            self.captions.append(caption)
        if self.args.show_messages is not None:
            self._draw_attention(result, caption)
        return f"{result.file}: " + " | ".join(f"{probabilities[i]:.1%} {names[i].name}" for i in best)

    def _draw_attention(self, result: Prediction, caption: str) -> None:
        drawing = draw_msg_attention(result.crop, result.weights, self.model.geometry, self.model.window_size, caption)
        if is_folder(self.args.show_messages):
            write_png(drawing_file(self.args.show_messages, self.common, result.file), drawing)
        else:
            self.rows.append(drawing)

    def write(self, config: Config, checkpoint: Path) -> None:
        """Write JSON, contact sheet and stacked drawings, and print the path of each file."""
        args, stream = self.args, sys.stdout if self.args.json != STANDARD_OUTPUT else sys.stderr
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
                print(f"wrote {args.json}", file=stream)
        if self.tiles:
            write_sheet(args.picture, self.tiles, self.captions)
            print(f"wrote {args.picture}", file=stream)
        if self.rows:
            write_png(args.show_messages, stack_rows(self.rows))
        if args.show_messages is not None and len(self.records) > len(self.unreadable):
            print(f"wrote {args.show_messages}", file=stream)
