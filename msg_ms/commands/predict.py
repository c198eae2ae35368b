"""Make predictions for files, such as classes or objects of images, and draw them; see docs/predict.md."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..checkpoint import load_for_inference
from ..cli import config_from_arguments, model_parser, path_argument, require
from ..data.images.folder import IMAGE_SUFFIXES
from ..engine.log import progress_bar
from ..engine.predictor import SCORE_THR, TOP_K, PredictOptions, Unreadable
from ..engine.runtime import start
from ..errors import UserError, shorten
from ..tasks import build_task
from ..visualize.contact_sheet import check_ours
from .predict_outputs import STANDARD_OUTPUT, Outputs, check_own_json, common_folder, drawing_file, is_folder

SUFFIXES = IMAGE_SUFFIXES  # files to find in folders
MAX_SHEET, MAX_STACK = 500, 50  # images in one contact sheet, and in one PNG with attention
CLASSES_HELP = """class names: a folder of class folders, or a text file with one name per line (default: those
stored in the checkpoint; for 1000 classes ImageNet's)"""
MESSAGES_HELP = """draw the attention of each stage's MSG tokens: one PNG with a row per image, or a folder with one PNG
per image"""


def main() -> None:
    """Make predictions for the files and write the requested outputs."""
    args = parse_arguments()
    config = config_from_arguments(args)
    checkpoint = Path(require(config.model.resume, "--resume"))
    files, unreadable = list_images(args.files)
    check_outputs(args, len(files))
    others = (Path(name) for name in (args.cfg, config.model.resume, config.data.class_index) if name)
    check_overwriting(args, files, (*files, *others))
    task = start(config, build_task, uses_data=False).task
    model = task.build_model().set_train(False)
    lines, metadata = load_for_inference(model, checkpoint)
    messages = args.show_messages is not None
    options = PredictOptions(args.batch_size, args.classes, args.top_k, args.score_thr, messages)
    predictor = task.predictor(model, metadata, options)
    for line in (*lines, *predictor.warnings):
        print(line, file=sys.stderr)

    outputs = Outputs(args, predictor, files)
    for folder in unreadable:
        line = outputs.add_unreadable(folder)
        if not args.json:
            print(line)
    for result, bar in progress_bar(predictor.predict(files), len(files), "predict"):
        line = outputs.add_unreadable(result) if isinstance(result, Unreadable) else outputs.add(result)
        if not args.json:
            bar.write(line)
    outputs.write(config, checkpoint)
    if outputs.unreadable:
        count = len(files) + len(unreadable)
        raise UserError(f"{len(outputs.unreadable)} of {count} files can't be read: {shorten(outputs.unreadable)}")


def parse_arguments() -> argparse.Namespace:
    """Parse and check the command's flags."""
    parser = model_parser("Classify images, or detect objects in them, with a trained model.")
    add = parser.add_argument
    add("--classes", type=path_argument, metavar="FOLDER|FILE", help=CLASSES_HELP)
    add("--top-k", type=int, metavar="N", help=f"classifier: predictions per image (default: {TOP_K})")
    add("--score-thr", type=float, metavar="S", help=f"detector: least score of an object (default: {SCORE_THR})")
    add("--json", type=json_argument, metavar="FILE", help="write JSON instead of a table; - writes to standard output")
    add("--picture", type=path_argument, metavar="PNG", help="write a contact sheet with the predictions")
    add("--show-messages", type=path_argument, metavar="FOLDER|PNG", help=MESSAGES_HELP)
    add("files", nargs="+", type=path_argument, metavar="IMAGE|FOLDER", help="folders are searched recursively")
    args = parser.parse_args()
    if args.top_k is not None and args.top_k < 1:
        raise UserError(f"--top-k {args.top_k}: must be at least 1")
    if args.score_thr is not None and not 0 <= args.score_thr <= 1:
        raise UserError(f"--score-thr {args.score_thr}: must be between 0 and 1")
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
        unreadable.append(Unreadable(Path(error.filename), error.strerror or str(error)))

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
    for flag, path in outputs.items():
        if path and flag == "--json":
            check_own_json(Path(path))
        elif path:
            check_ours(path)
