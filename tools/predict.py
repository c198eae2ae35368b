"""Classify pictures: python tools/predict.py --cfg F --resume X.ckpt --classes <folder of class folders> PICTURE..."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from mindspore import Tensor, nn, ops

from msg_ms.cli import run_command_line
from msg_ms.config import load_config
from msg_ms.contact_sheet import write_sheet
from msg_ms.data.collate import collate
from msg_ms.data.folder import scan_folder
from msg_ms.data.transforms import decode, resize_and_crop
from msg_ms.engine.checkpoint import load_weights
from msg_ms.engine.device import setup_device
from msg_ms.errors import UserError
from msg_ms.models.build import build_model


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
    load_weights(model, args.resume)

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
        return decode(file.read_bytes())
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"can't read {file} as a picture: {error}") from None


def classify(model: nn.Cell, crops: list[np.ndarray]) -> np.ndarray:
    """Class probabilities (pictures, classes), one picture at a time."""
    rows = [ops.softmax(model(Tensor(collate([crop]))), -1).asnumpy()[0] for crop in crops]
    return np.stack(rows)


if __name__ == "__main__":
    run_command_line(main)
