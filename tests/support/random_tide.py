"""Random annotations and detections, and the numbers of the package tidecv for them.

``python tests/support/random_tide.py`` writes tests/fixtures/detection/tide.json. It needs tidecv 1.0.1, which wants
NumPy 1, pandas and seaborn.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

FIXTURE = Path(__file__).parents[1] / "fixtures" / "detection" / "tide.json"
SEEDS = range(16)
KINDS = ("bbox", "segm")


def random_data(seed: int) -> tuple[list[int], list[dict[str, Any]], list[dict[str, Any]]]:
    """Return ids of images, annotations and detections, many near the objects and many of equal score."""
    draws = np.random.RandomState(seed)
    images, classes = list(range(7, 7 + draws.randint(1, 9))), int(draws.choice([1, 3, 12]))
    truth, found = [], []
    for image in images:
        for _ in range(draws.choice([0, 1, 4, 9])):
            own = {"image_id": image, "category_id": int(draws.randint(classes)), "iscrowd": int(draws.rand() < 0.15)}
            truth.append({**own, **shape(draws, draws.uniform(0, 40, 2), draws.uniform(3, 25, 2))})
        near = [row for row in truth if row["image_id"] == image]
        for _ in range(draws.choice([0, 3, 12, 120], p=[0.2, 0.3, 0.45, 0.05])):
            corner, sides, category = draws.uniform(0, 40, 2), draws.uniform(3, 25, 2), int(draws.randint(classes + 1))
            if near and draws.rand() < 0.8:
                row = near[draws.randint(len(near))]
                corner, sides = np.array(row["bbox"][:2]), np.array(row["bbox"][2:])
                corner = corner + draws.normal(0, draws.choice([0, 1, 5]), 2)
                category = row["category_id"] if draws.rand() < 0.7 else category
            score = round(float(draws.rand()), int(draws.choice([1, 6])))
            found.append({"image_id": image, "category_id": category, "score": score, **shape(draws, corner, sides)})
    return images, truth, found


def shape(draws: np.random.RandomState, corner: np.ndarray, sides: np.ndarray) -> dict[str, Any]:
    """Return a box and a mask in it."""
    bitmap = np.zeros((64, 64), np.uint8, "F")
    x, y = np.clip(corner, 0, 63).astype(int)
    bitmap[y : y + int(sides[1]), x : x + int(sides[0])] = 1
    bitmap[draws.rand(64, 64) < draws.choice([0, 0.02])] = 0
    mask = coco_mask.encode(bitmap)
    return {"bbox": [*corner.tolist(), *sides.tolist()], "segmentation": {**mask, "counts": mask["counts"].decode()}}


def by_tidecv(seed: int, kind: str) -> dict[str, Any] | None:
    """Return tidecv's AP, dAP in percent and counts; None where it divides by zero, as no class has anything left."""
    from tidecv import TIDE, Data

    images, truth, found = random_data(seed)
    truths, detections = Data("truth"), Data("detections")
    for image in images:
        truths.add_image(image, str(image))
    for row in truth:
        add = truths.add_ignore_region if row["iscrowd"] else truths.add_ground_truth
        add(row["image_id"], row["category_id"], row["bbox"], row["segmentation"])
    for category in {row["category_id"] for row in truth + found}:
        truths.add_class(category, str(category))
    for row in found:
        detections.add_detection(row["image_id"], row["category_id"], row["score"], row["bbox"], row["segmentation"])
    tide = TIDE(mode=TIDE.BOX if kind == "bbox" else TIDE.MASK)
    try:
        run = tide.evaluate(truths, detections)
        gains = {**run.fix_main_errors(), **run.fix_special_errors()}
    except ZeroDivisionError:
        return None
    names = {"FalsePos": "FP", "FalseNeg": "FN"}
    return {
        "ap": run.ap,
        "gains": {names.get(error.short_name, error.short_name): value for error, value in gains.items()},
        "counts": {error.short_name: count for error, count in run.count_errors().items()},
    }


if __name__ == "__main__":
    numbers = [{kind: by_tidecv(seed, kind) for kind in KINDS} for seed in SEEDS]
    FIXTURE.write_text("[" + ",\n".join(map(json.dumps, numbers)) + "]\n", encoding="utf-8")
