"""Classify pictures, and show what the message tokens look at; see docs/predict.md."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint import load_for_inference
from ..cli import config_from_arguments, model_parser, require
from ..config import Config
from ..data.class_names import CLASSES_KEY, ClassName, default_class_names, read_class_names
from ..data.folder import IMAGE_SUFFIXES
from ..engine.device import check_half_precision, setup_device
from ..engine.log import progress
from ..errors import UserError, shorten
from ..files import atomic_write
from ..models.build import build_model
from ..models.inference import optimize_for_inference
from ..models.msg_transformer import MSGTransformer
from ..models.precision import set_precision
from ..support import check_supported
from ..tasks.predictor import Prediction, Predictor, Unreadable
from ..visualize.attention import draw_messages, stack_rows
from ..visualize.contact_sheet import as_tile, write_png, write_sheet

SUFFIXES = (*IMAGE_SUFFIXES, ".bmp", ".gif", ".tif", ".tiff", ".webp")  # what is looked for in folders
BATCH = 16  # pictures at a time, unless --batch-size says otherwise
ON_A_SHEET, ON_A_STACK = 500, 50  # pictures at most; more can't be looked at
STANDARD_OUTPUT = "-"


def main() -> None:
    args = parse_arguments()
    config = config_from_arguments(args)
    check_supported(config)
    checkpoint = Path(require(config.model.resume, "--resume"))
    names = read_class_names(args.classes, config.model.num_classes, config.data.class_index) if args.classes else None
    files = list_pictures(args.files)
    check_outputs(args, len(files))
    setup_device(config.device_target, config.seed, config.jit_level)
    check_half_precision(config.amp_level, config.amp.dtype)
    model = build_model(config.model, config.data.img_size).set_train(False)
    set_precision(model, config.amp_level, config.amp.dtype)
    lines, notes = load_for_inference(model, checkpoint)
    for line in lines:
        print(line, file=sys.stderr)
    if args.show_messages is None:  # which asks the blocks for their own parameters
        optimize_for_inference(model, strassen=True)
    names = names or default_class_names(config.model.num_classes, str(notes.get(CLASSES_KEY, "")))

    batch = min(args.batch_size or BATCH, len(files))
    predictor = Predictor(model, config, batch, messages=args.show_messages is not None)
    outputs = Outputs(args, model, names, files)
    for answer, bar in progress(predictor.predict(files), len(files), "predict"):
        line = outputs.add_unreadable(answer) if isinstance(answer, Unreadable) else outputs.add(answer)
        if not args.json:
            bar.write(line)
    outputs.write(config, checkpoint)
    if outputs.unreadable:
        raise UserError(f"{len(outputs.unreadable)} of {len(files)} files can't be read: {shorten(outputs.unreadable)}")


def parse_arguments() -> argparse.Namespace:
    parser = model_parser("Classify pictures with a trained model.")
    parser.add_argument(
        "--classes", type=Path, metavar="FOLDER|FILE", help="class names: a folder of class folders, or a text file "
        "with a name per line (default: those that the checkpoint noted; for 1000 classes ImageNet's)",
    )  # fmt: skip
    parser.add_argument("--top-k", type=int, default=5, metavar="N", help="how many answers per picture (default: 5)")
    parser.add_argument("--json", metavar="FILE", help="write JSON instead of a table, to standard output with -")
    parser.add_argument("--picture", type=Path, metavar="PNG", help="write a contact sheet with the answers")
    parser.add_argument(
        "--show-messages", type=Path, metavar="FOLDER|PNG", help="draw what the message tokens of each stage attend "
        "to: one PNG with a row per picture, or a folder with a PNG for each",
    )  # fmt: skip
    parser.add_argument("files", nargs="+", type=Path, metavar="PICTURE|FOLDER", help="folders are searched through")
    args = parser.parse_args()
    if args.top_k < 1:
        raise UserError(f"--top-k {args.top_k}: must be at least 1")
    return args


def list_pictures(given: Sequence[Path]) -> list[Path]:
    """The files as given, and what pictures the folders hold at any depth, by name; hidden ones are left aside."""
    files: list[Path] = []
    for path in given:
        found = sorted(_below(path)) if path.is_dir() else [path]
        if not found:
            raise UserError(f"{path} holds no pictures ({', '.join(SUFFIXES)})")
        files += found
    if not any(file.exists() for file in files):
        raise UserError(f"there is no such file or folder: {shorten([str(file) for file in files])}")
    return files


def _below(folder: Path) -> Iterator[Path]:
    seen = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if os.path.realpath(root) in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(os.path.realpath(root))
        yield from (Path(root) / n for n in names if n.lower().endswith(SUFFIXES) and not n.startswith("."))


def check_outputs(args: argparse.Namespace, count: int) -> None:
    """Raise UserError for a name or number of pictures that --json, --picture or --show-messages can't take."""
    for flag, path, suffix in (
        ("--json", args.json if args.json != STANDARD_OUTPUT else None, ".json"),
        ("--picture", args.picture, ".png"),
        ("--show-messages", None if is_folder(args.show_messages) else args.show_messages, ".png"),
    ):
        if path is not None and Path(path).suffix.lower() != suffix:
            other = {"--json": f", or be {STANDARD_OUTPUT} for standard output", "--show-messages": ", or be a folder"}
            raise UserError(f"{flag} {path}: must end in {suffix}{other.get(flag, '')}")
    if args.picture is not None and count > ON_A_SHEET:
        raise UserError(f"--picture: {count} pictures are too many for one sheet, {ON_A_SHEET} at most")
    if args.show_messages is not None and not is_folder(args.show_messages) and count > ON_A_STACK:
        raise UserError(
            f"--show-messages: {count} pictures are too many for one PNG, {ON_A_STACK} at most; a folder takes them all"
        )


def is_folder(path: Path | None) -> bool:
    """Whether --show-messages names a folder, which need not be there yet."""
    return path is not None and (path.is_dir() or not path.suffix)


class Outputs:
    """Where answers go: a table or JSON, the contact sheet, the pictures of the messages."""

    def __init__(self, args: argparse.Namespace, model: MSGTransformer, names: list[ClassName], files: Sequence[Path]):
        self.args, self.model, self.names = args, model, names
        self.records: list[dict[str, Any]] = []
        self.unreadable: list[str] = []
        self.tiles: list[np.ndarray] = []
        self.captions: list[str] = []
        self.rows: list[np.ndarray] = []
        self.common = Path(os.path.commonpath([file.resolve().parent for file in files]))

    def add_unreadable(self, answer: Unreadable) -> str:
        """Take a file that gave no answer; its line of the table."""
        self.unreadable.append(f"{answer.file} ({answer.reason})")
        self.records.append({"file": str(answer.file), "error": answer.reason})
        return f"{answer.file}: can't be read: {answer.reason}"

    def add(self, answer: Prediction) -> str:
        """Take one answer, and write or keep its pictures; its line of the table."""
        row = answer.probabilities
        best = np.argsort(-row, kind="stable")[: self.args.top_k]
        self.records.append(
            {
                "file": str(answer.file),
                "predictions": [
                    {
                        "label": int(i),
                        "class": self.names[i].folder,
                        "name": self.names[i].name,
                        "probability": float(row[i]),
                    }
                    for i in best
                ],
            }
        )
        caption = f"{row[best[0]]:.0%} {self.names[best[0]].short}"
        if self.args.picture is not None:
            self.tiles.append(as_tile(answer.picture))
            self.captions.append(caption)
        if self.args.show_messages is not None:
            self._show_messages(answer, caption)
        return f"{answer.file}: " + " | ".join(f"{row[i]:.1%} {self.names[i].name}" for i in best)

    def _show_messages(self, answer: Prediction, caption: str) -> None:
        drawn = draw_messages(answer.crop, answer.weights, self.model.geometry, self.model.window_size, caption)
        if is_folder(self.args.show_messages):
            # In the pictures' own tree; their whole names, as a.jpg and a.png may lie side by side.
            below = answer.file.resolve().relative_to(self.common)
            write_png(self.args.show_messages / below.with_name(below.name + ".png"), drawn)
        else:
            self.rows.append(drawn)

    def write(self, config: Config, checkpoint: Path) -> None:
        """Write what waited for the last answer; tells each file."""
        args, told = self.args, sys.stdout if self.args.json != STANDARD_OUTPUT else sys.stderr
        if args.json:
            content = {"model": config.model.name, "checkpoint": str(checkpoint), "pictures": self.records}
            text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
            if args.json == STANDARD_OUTPUT:
                sys.stdout.write(text)
            else:
                with atomic_write(Path(args.json)) as temporary:
                    temporary.write_text(text, encoding="utf-8")
                print(f"wrote {args.json}", file=told)
        if self.tiles:
            write_sheet(args.picture, self.tiles, self.captions)
            print(f"wrote {args.picture}", file=told)
        if self.rows:
            write_png(args.show_messages, stack_rows(self.rows))
        if args.show_messages is not None and len(self.records) > len(self.unreadable):
            print(f"wrote {args.show_messages}", file=told)
