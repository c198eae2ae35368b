"""Write scenes of handwritten digits as a COCO data set: python tools/make_scenes.py demo/scenes.

Every scene shows some of scikit-learn's 1,797 scans of digits in random places, sizes and shades. The object of a digit
is its ink: the box is the smallest around it, and the mask is run-length encoded, as polygons have no holes. The digits
of the validation scenes are every fifth of a class, those of the training scenes the others, as in make_digits.py.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from msg_ms.cli import path_argument, run_command_line
from msg_ms.errors import UserError
from msg_ms.files import new_folder

VAL_EVERY = 5
SIDES = (96, 128)  # height and width of a scene in pixels, at least and at most
DIGIT_SIDES = (28, 48)  # side of a digit's scan in a scene
COUNTS = (2, 6)  # digits in a scene
MARGIN = 1  # pixels between the scans of a scene
INK = 0.35  # least darkness of a pixel of the mask
PLACES = 100  # places that are tried for a digit


def main() -> None:
    """Write the data set, unless the folder already exists."""
    parser = argparse.ArgumentParser(description="Write scenes of handwritten digits as a COCO data set with masks.")
    parser.add_argument("folder", type=path_argument, help="folder to create")
    parser.add_argument("--train", type=int, default=600, metavar="N", help="training scenes (default: 600)")
    parser.add_argument("--val", type=int, default=100, metavar="N", help="validation scenes (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the scenes (default: 0)")
    args = parser.parse_args()
    folder: Path = args.folder
    for flag, value, least in (("--train", args.train, 1), ("--val", args.val, 1), ("--seed", args.seed, 0)):
        if value < least:
            raise UserError(f"{flag} {value}: must be at least {least}")
    if (folder / "annotations").is_dir():
        print(f"{folder} already exists")
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and has no annotations/; name a new folder")
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError("scikit-learn, which contains the digits, is missing: pip install 'msg-ms[demo]'") from None
    digits = load_digits()
    with new_folder(folder) as filling:
        (filling / "annotations").mkdir()
        scenes = {"train": args.train, "val": args.val}
        objects = {part: write_part(digits, filling, part, count, args.seed) for part, count in scenes.items()}
    print(
        f"{folder}: {args.train} scenes with {objects['train']} digits to train on, {args.val} with {objects['val']} "
        "to evaluate on"
    )


def write_part(digits, folder: Path, part: str, count: int, seed: int) -> int:
    """Write the scenes of one part with their annotations and return the number of objects."""
    chosen = digits_of(digits.target, part)
    rng = np.random.default_rng((seed, part == "val"))
    images, annotations = [], []
    (folder / f"{part}2017").mkdir()
    for number in range(1, count + 1):
        picture, masks, labels = draw_scene(digits, chosen, rng)
        name = f"{number:06d}.png"
        (folder / f"{part}2017" / name).write_bytes(cv2.imencode(".png", picture)[1])  # imwrite hides a full disk
        images.append({"id": number, "file_name": name, "height": picture.shape[0], "width": picture.shape[1]})
        for mask, label in zip(masks, labels, strict=True):
            annotations.append({"id": len(annotations) + 1, "image_id": number, **annotation(mask, label)})
    # Like COCO's, the ids are not the indices.
    categories = [{"id": label + 1, "name": str(label), "supercategory": "digit"} for label in range(10)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations" / f"instances_{part}2017.json").write_text(json.dumps(content), encoding="utf-8")
    return len(annotations)


def digits_of(target: np.ndarray, part: str) -> np.ndarray:
    """Return the indices of a part's scans."""
    groups = [np.flatnonzero(target == label) for label in range(10)]
    return np.concatenate([g[(np.arange(len(g)) % VAL_EVERY == 0) == (part == "val")] for g in groups])


def draw_scene(digits, chosen: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray], list[int]]:
    """Return a scene (H, W, 3), uint8, the masks of its digits (H, W), bool, and their labels."""
    height, width = rng.integers(SIDES[0], SIDES[1] + 1, 2)
    shade = np.linspace(*rng.uniform(150, 250, 2), width)  # a gradient from left to right
    scene = np.broadcast_to(shade[None, :, None], (height, width, 3)) + rng.uniform(-25, 5, 3)
    taken, masks, labels = np.zeros((height, width), bool), [], []
    for index in rng.choice(chosen, rng.integers(COUNTS[0], COUNTS[1] + 1), replace=False):
        side = int(rng.integers(DIGIT_SIDES[0], DIGIT_SIDES[1] + 1))
        place = free_place(taken, side, rng)
        if place is None:
            continue
        taken[place] = True
        ink = np.zeros((height, width))
        scan = cv2.resize(digits.images[index] / 16, (side, side), interpolation=cv2.INTER_CUBIC)
        ink[place] = np.clip(scan, 0, 1)
        scene = scene + ink[..., None] * (rng.uniform(0, 100, 3) - scene)
        masks.append(ink >= INK)
        labels.append(int(digits.target[index]))
    noise = rng.normal(0, 6, scene.shape)
    return np.clip(scene + noise, 0, 255).astype(np.uint8), masks, labels


def free_place(taken: np.ndarray, side: int, rng: np.random.Generator) -> tuple[slice, slice] | None:
    """Return a free square of a scene; None if none is found."""
    for _ in range(PLACES):
        top, left = (int(rng.integers(0, length - side + 1)) for length in taken.shape)
        around = taken[max(top - MARGIN, 0) : top + side + MARGIN, max(left - MARGIN, 0) : left + side + MARGIN]
        if not around.any():
            return slice(top, top + side), slice(left, left + side)
    return None


def annotation(mask: np.ndarray, label: int) -> dict[str, Any]:
    """Return the annotation of one object, without ids."""
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    box = [float(value) for value in coco_mask.toBbox(encoded)]
    segmentation = {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}
    area = float(coco_mask.area(encoded))
    return {"category_id": label + 1, "bbox": box, "area": area, "segmentation": segmentation, "iscrowd": 0}


if __name__ == "__main__":
    run_command_line(main)
