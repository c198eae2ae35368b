"""The images with the most errors of a detector, with truth and detections side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from ..boxes.rle import decode_rle
from ..data.detection import read_image
from ..data.pixels.image_files import BadFiles
from ..engine.predictor import SCORE_THR
from ..files import readable
from ..report import Image, Section
from ..report.images import jpeg
from ..report.tide import NAMES, ImageErrors
from ..visualize.detections import draw_objects
from .coco_evaluator import CocoEvaluator

WORST = 12  # images
SIDE = 560  # pixels of the long side at most
LISTED = 8  # objects in the text of an image


def worst_images(evaluator: CocoEvaluator, errors: Sequence[ImageErrors]) -> Section:
    """Return the images with the most missed objects and wrong detections.

    Args:
        evaluator: The evaluator after ``compute`` on rank 0.
        errors: The errors of the boxes in each image.
    """
    ranked = []
    for index, image in enumerate(errors):
        found, wrong = image.judged(SCORE_THR)
        count = int((~found).sum() + wrong.sum())
        if count:
            ranked.append((-count, -float(image.scores[wrong].sum()), index))
    ranked.sort()
    chosen = [index for _, _, index in ranked[:WORST]]
    lines = [
        f"{len(ranked)} of {len(errors)} images have missed objects, or wrong detections with a score of at least "
        f"{SCORE_THR:g}, by their boxes." + (" These have the most; the truth is on the left." if chosen else "")
    ]
    numbers = {int(evaluator.split.image_ids[index]): index for index in chosen}
    rows: dict[int, list[dict[str, Any]]] = {index: [] for index in chosen}
    for row in evaluator.results:
        if row["image_id"] in numbers:
            rows[numbers[row["image_id"]]].append(row)
    return Section("Worst images", lines, images=[_pair(evaluator, i, errors[i], rows[i]) for i in chosen])


def _pair(evaluator: CocoEvaluator, index: int, errors: ImageErrors, rows: Sequence[dict[str, Any]]) -> list[Image]:
    split, truth = evaluator.split, evaluator.truth
    assert truth is not None  # there are errors
    names = dict(zip(split.category_ids, split.class_names, strict=True))
    found, wrong = errors.judged(SCORE_THR)
    objects = [row for row in truth.imgToAnns[int(split.image_ids[index])] if not row["iscrowd"]]
    strong = np.flatnonzero(errors.scores >= SCORE_THR)
    detections = [rows[row] for row in errors.rows[strong]]
    missed = [names[row["category_id"]] for row, hit in zip(objects, found, strict=True) if not hit]
    kinds = [f" {NAMES[errors.kinds[i]]}" if wrong[i] else "" for i in strong]
    ends = [f" {row['score']:.2f}{kind}" for row, kind in zip(detections, kinds, strict=True)]
    texts = [_drawable(names, row) + end for row, end in zip(detections, ends, strict=True)]
    faults = [names[row["category_id"]] + end for i, row, end in zip(strong, detections, ends, strict=True) if wrong[i]]
    labels = {category: label for label, category in enumerate(split.category_ids)}
    pixels = read_image(split, index, BadFiles(limit=0))
    if pixels is None:  # it was there during evaluation
        pixels = np.full((*split.size(index), 3), 200, np.uint8)
    captions = [_drawable(names, row) + ("" if hit else " missed") for row, hit in zip(objects, found, strict=True)]
    return [
        jpeg(
            _drawing(pixels, objects, labels, captions),
            readable(split.files[index]),
            f"truth: {len(objects)} objects, {len(missed)} missed{_list(missed)}",
        ),
        jpeg(
            _drawing(pixels, detections[::-1], labels, texts[::-1]),  # the highest score on top
            "",
            f"detections: {len(detections)}, {len(faults)} wrong{_list(faults)}",
        ),
    ]


def _drawable(names: Mapping[int, str], row: Mapping[str, Any]) -> str:
    """Return a class for a drawing, whose letters are ASCII: its name, or COCO's id."""
    name = names[row["category_id"]]
    return name if name.isascii() else f"#{row['category_id']}"


def _list(texts: Sequence[str]) -> str:
    more = ", ..." if len(texts) > LISTED else ""
    return f": {', '.join(texts[:LISTED])}{more}" if texts else ""


def _drawing(
    pixels: np.ndarray, rows: Sequence[Mapping[str, Any]], labels: Mapping[int, int], captions: Sequence[str]
) -> np.ndarray:
    """Return an image, uint8 RGB, with the boxes and masks of rows in COCO's form; a large one is shrunk first."""
    scale = min(1.0, SIDE / max(pixels.shape[:2]))
    size = [max(1, round(side * scale)) for side in pixels.shape[1::-1]]
    if scale < 1:
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    boxes = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4) * scale
    boxes[:, 2:] += boxes[:, :2]
    boxes = np.clip(boxes, -SIDE, 2 * SIDE)
    masks = [
        cv2.resize(decode_rle(row["segmentation"]).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)
        for row in rows
        if row.get("segmentation")
    ]
    own = [labels[row["category_id"]] for row in rows]
    return draw_objects(pixels, boxes, own, captions, masks if len(masks) == len(rows) else ())
