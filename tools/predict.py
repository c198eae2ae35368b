"""Classify pictures: python tools/predict.py --cfg F --resume X.ckpt --classes <folder of class folders> PICTURE..."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.dataset import transforms, vision

from msg_ms.cli import run_command_line
from msg_ms.config import load_config
from msg_ms.data.folder import scan_folder
from msg_ms.data.transforms import normalise, resize_and_crop
from msg_ms.engine.checkpoint import load_parameters, read_checkpoint
from msg_ms.engine.device import setup_device
from msg_ms.errors import UserError
from msg_ms.models.build import build_model

TILE, CAPTION, COLUMNS = 160, 24, 5  # pixels, pixels, pictures per row


def main() -> None:
    parser = argparse.ArgumentParser(description="Classify pictures with a trained model.")
    parser.add_argument("--cfg", required=True, metavar="FILE", help="the model's configuration")
    parser.add_argument("--resume", required=True, type=Path, metavar="CKPT", help="its checkpoint")
    parser.add_argument("--classes", type=Path, help="folder whose class folders name the classes (default: numbers)")
    parser.add_argument("--picture", type=Path, metavar="PNG", help="write a contact sheet with the answers")
    parser.add_argument("--device-target", choices=["CPU", "GPU", "Ascend"])
    parser.add_argument("files", nargs="+", type=Path, metavar="PICTURE")
    args = parser.parse_args()

    config = load_config(args.cfg)
    names = class_names(args.classes, config.model.num_classes)
    pictures = [read_picture(file) for file in args.files]
    setup_device(args.device_target or "", config.seed)
    model = build_model(config.model, config.data.img_size).set_train(False)
    load_parameters(model.get_parameters(), read_checkpoint(args.resume)[0], "", args.resume)

    crops = [resize_and_crop(p, config.data.img_size, config.data.interpolation, config.test.crop) for p in pictures]
    probabilities = classify(model, crops)
    for file, row in zip(args.files, probabilities, strict=True):
        best = np.argsort(-row)[:5]
        print(f"{file}: " + ", ".join(f"{names[i]} {row[i]:.1%}" for i in best))
    if args.picture is not None:
        answers = [f"{names[row.argmax()]} {row.max():.0%}" for row in probabilities]
        write_sheet(args.picture, pictures, answers)
        print(f"wrote {args.picture}")


def class_names(folder: Path | None, num_classes: int) -> list[str]:
    names = [str(i) for i in range(num_classes)] if folder is None else list(scan_folder(folder).classes)
    if len(names) != num_classes:
        raise UserError(f"--classes {folder} has {len(names)} class folders, but MODEL.NUM_CLASSES={num_classes}")
    return names


def read_picture(file: Path) -> np.ndarray:
    """RGB uint8 (H, W, 3), decoded as for training."""
    try:
        return vision.Decode()(np.fromfile(file, np.uint8))
    except (OSError, RuntimeError, ValueError, TypeError):
        raise UserError(f"can't read {file} as a picture") from None


def classify(model: nn.Cell, crops: list[np.ndarray]) -> np.ndarray:
    """Class probabilities (pictures, classes), one picture at a time."""
    prepare = transforms.Compose(normalise())
    rows = [ops.softmax(model(Tensor(prepare(crop)[None])), -1).asnumpy()[0] for crop in crops]
    return np.stack(rows)


def write_sheet(path: Path, pictures: list[np.ndarray], answers: list[str]) -> None:
    """Pictures in rows, each with its answer below."""
    rows = -(-len(pictures) // COLUMNS)
    sheet = np.full((rows * (TILE + CAPTION), min(COLUMNS, len(pictures)) * TILE, 3), 255, np.uint8)
    for n, (picture, answer) in enumerate(zip(pictures, answers, strict=True)):
        top, left = n // COLUMNS * (TILE + CAPTION), n % COLUMNS * TILE
        scale = (TILE - 8) / max(picture.shape[:2])
        size = [max(1, round(side * scale)) for side in picture.shape[1::-1]]
        tile = cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST if scale > 4 else cv2.INTER_AREA)
        sheet[top + 4 : top + 4 + tile.shape[0], left + 4 : left + 4 + tile.shape[1]] = tile[..., ::-1]
        origin = (left + 6, top + TILE + CAPTION - 8)
        cv2.putText(sheet, answer, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), sheet):
        raise UserError(f"can't write {path}")


if __name__ == "__main__":
    run_command_line(main)
