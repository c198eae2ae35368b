"""The outputs of predict: a table or JSON, contact sheets and drawings."""

from __future__ import annotations

import argparse
import codecs
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..boxes.rle import decode_rle
from ..config import Config
from ..data.images.class_names import ClassName
from ..errors import UserError
from ..files import atomic_write, head_of_file, readable
from ..models.msg_transformer import MSGTransformer
from ..tasks.classification_predictor import ClassificationPrediction, Unreadable
from ..tasks.detection_predictor import DetectionPrediction
from ..visualize.attention import draw_msg_attention, stack_rows
from ..visualize.contact_sheet import TILE, as_tile, write_png, write_sheet
from ..visualize.detections import SMALLEST, draw_objects

STANDARD_OUTPUT = "-"
TOP_K, SCORE_THR = 5, 0.3  # defaults of --top-k and --score-thr


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
    """Collected results: table or JSON, and a contact sheet.

    Args:
        args: The flags of the command.
        names: Names of the classes.
    """

    tile = TILE  # side of an image in the contact sheet

    def __init__(self, args: argparse.Namespace, names: list[ClassName]):
        self.args, self.names = args, names
        self.records: list[dict[str, Any]] = []
        self.unreadable: list[str] = []
        self.tiles: list[np.ndarray] = []
        self.captions: list[str] = []

    def add_unreadable(self, result: Unreadable) -> str:
        """Record a file without prediction and return its line of the table."""
        self.unreadable.append(f"{result.file} ({result.reason})")
        self.records.append({"file": readable(result.file), "error": readable(result.reason)})
        return f"{result.file}: can't be read: {result.reason}"

    def class_record(self, label: int) -> dict[str, Any]:
        """Return label, class and name for the JSON."""
        name = self.names[label]
        return {"label": label, "class": readable(name.folder), "name": readable(name.name)}

    def add_tile(self, image: np.ndarray, caption: str) -> None:
        """Add an image to the contact sheet, if one is asked for."""
        if self.args.picture is not None:
            self.tiles.append(as_tile(image, self.tile))
            self.captions.append(caption)

    def write(self, config: Config, checkpoint: Path) -> None:
        """Write JSON and contact sheet, and print the path of each file."""
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
            write_sheet(args.picture, self.tiles, self.captions, self.tile)
            self.report(args.picture)

    def report(self, path: Path | str) -> None:
        """Print the path of a written file."""
        print(f"wrote {path}", file=sys.stdout if self.args.json != STANDARD_OUTPUT else sys.stderr)


class ClassificationOutputs(Outputs):
    """The outputs of a classifier, with drawings of the MSG tokens' attention.

    Args:
        args: The flags of the command.
        names: Names of the classes.
        model: The classifier.
        files: All images.
    """

    def __init__(self, args: argparse.Namespace, names: list[ClassName], model: MSGTransformer, files: Sequence[Path]):
        super().__init__(args, names)
        self.model, self.common = model, common_folder(files)
        self.rows: list[np.ndarray] = []

    def add(self, result: ClassificationPrediction) -> str:
        """Record a prediction, draw the requested images, and return its line of the table."""
        probabilities, names = result.probabilities, self.names
        best = [int(i) for i in np.argsort(-probabilities, kind="stable")[: self.args.top_k or TOP_K]]
        predictions = [{**self.class_record(i), "probability": float(probabilities[i])} for i in best]
        self.records.append({"file": readable(result.file), "predictions": predictions})
        caption = f"{probabilities[best[0]]:.0%} {names[best[0]].short}"
        self.add_tile(result.image, caption)
        if self.args.show_messages is not None:
            self._draw_attention(result, caption)
        return f"{result.file}: " + " | ".join(f"{probabilities[i]:.1%} {names[i].name}" for i in best)

    def _draw_attention(self, result: ClassificationPrediction, caption: str) -> None:
        drawing = draw_msg_attention(result.crop, result.weights, self.model.geometry, self.model.window_size, caption)
        if is_folder(self.args.show_messages):
            write_png(drawing_file(self.args.show_messages, self.common, result.file), drawing)
        else:
            self.rows.append(drawing)

    def write(self, config: Config, checkpoint: Path) -> None:
        """Write JSON, contact sheet and stacked drawings, and print the path of each file."""
        super().write(config, checkpoint)
        if self.rows:
            write_png(self.args.show_messages, stack_rows(self.rows))
        if self.args.show_messages is not None and len(self.records) > len(self.unreadable):
            self.report(self.args.show_messages)


class DetectionOutputs(Outputs):
    """The outputs of a detector: boxes and masks of the objects above ``--score-thr``."""

    tile = SMALLEST

    def add(self, result: DetectionPrediction) -> str:
        """Record the objects of an image, draw them if requested, and return its line of the table."""
        found = result.detections
        threshold = SCORE_THR if self.args.score_thr is None else self.args.score_thr
        kept = np.flatnonzero(found.scores >= threshold)
        objects = [
            {
                **self.class_record(int(found.labels[i])),
                "score": float(found.scores[i]),
                "box": found.boxes[i].tolist(),
                "segmentation": found.masks[i],
            }
            for i in kept
        ]
        self.records.append({"file": readable(result.file), "objects": objects})
        labels = found.labels[kept].tolist()
        texts = [f"{self.names[label].short} {found.scores[i]:.2f}" for i, label in zip(kept, labels, strict=True)]
        if self.args.picture is not None:
            masks = [decode_rle(found.masks[i]) for i in kept]
            drawing = draw_objects(result.image, found.boxes[kept], labels, texts, masks)
            self.add_tile(drawing, result.file.name)
        names = [f"{self.names[label].name} {found.scores[i]:.2f}" for i, label in zip(kept, labels, strict=True)]
        return f"{result.file}: " + (" | ".join(names) or f"no object with a score of {threshold:g}")
