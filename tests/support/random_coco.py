"""Random COCO data and detections, and pycocotools' own numbers for them from the raw file."""

from __future__ import annotations

import contextlib
import copy
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from mindspore import nn
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from msg_ms.boxes.rle import encode_rle
from msg_ms.data.coco.split import CocoSplit
from msg_ms.engine.ranks import Ranks
from msg_ms.tasks.coco_evaluator import KINDS, NUMBERS, CocoEvaluator, metric_key

Numbers = dict[str, float | None]


def random_content(rng: np.random.Generator, low: int = 4, classes: int = 0) -> dict[str, Any]:
    """Return a sound annotation file with odd ids, sizes, masks, crowds and optional entries.

    Args:
        rng: Draws everything.
        low: Least side of an image.
        classes: Number of classes; drawn if 0.
    """
    count = int(rng.integers(1, 5))
    image_ids = _ids(rng, count)
    images = [
        {"id": image_ids[i], "file_name": f"{i}.png", "height": int(h), "width": int(w)}
        for i, (h, w) in enumerate(rng.integers(low, 70, (count, 2)))
    ]
    classes = classes or int(rng.choice([1, 2, 3, 8, 90]))
    categories = [{"id": number, "name": f"class {i}"} for i, number in enumerate(_ids(rng, classes))]
    used = [category["id"] for category in categories][: int(rng.integers(1, classes + 1))]
    annotations: list[dict[str, Any]] = []
    for image in images:
        for _ in range(int(rng.integers(0, 7))):
            annotations.append(_annotation(rng, image, used[rng.integers(len(used))]))
    for annotation, number in zip(annotations, _ids(rng, len(annotations)), strict=True):
        annotation["id"] = number
    rng.shuffle(annotations)
    rng.shuffle(images)
    content = {"images": images, "annotations": annotations, "categories": categories}
    return {**content, "info": {}} if rng.random() < 0.3 else content


def _ids(rng: np.random.Generator, count: int) -> list[Any]:
    """Return different ids: from 0, from 1, negative, beyond 32 bits, or as floats."""
    start = int(rng.choice([0, 1, -3, 2**41, 7]))
    ids = [start + int(i) for i in rng.permutation(3 * count)[:count]]
    return [float(i) for i in ids] if rng.random() < 0.1 else ids


def _annotation(rng: np.random.Generator, image: dict[str, Any], category: Any) -> dict[str, Any]:
    height, width = image["height"], image["width"]
    low = rng.uniform(-0.2, 0.9, 2) * [width, height]
    sides = rng.uniform(0.02, 0.8, 2) * [width, height]
    box = [round(float(value), int(rng.integers(0, 4))) for value in (*low, *sides)]
    own = {
        "image_id": image["id"],
        "category_id": category,
        "bbox": box,
        "segmentation": _mask(rng, box, height, width),
    }
    if (kind := rng.integers(6)) > 1:
        own["area"] = [0, 1024, 9216.0, round(box[2] * box[3], 2)][kind - 2]
    if (kind := rng.integers(8)) > 1:
        own["iscrowd"] = [0, 1, False, True, 0.0, 0][kind - 2]
    if rng.random() < 0.1:
        own["ignore"] = int(rng.integers(2))
    return own


def _mask(rng: np.random.Generator, box: list[float], height: int, width: int) -> Any:
    """Return polygons with short rings among them, or run lengths of a bitmap with holes."""
    x, y, w, h = box
    if rng.random() < 0.6:
        rings = []
        for _ in range(rng.integers(1, 4)):
            points = rng.uniform(-0.1, 1.1, (rng.integers(3, 12), 2)) * [w, h] + [x, y]
            rings.append(np.round(points, int(rng.integers(0, 4))).ravel().tolist())
        for _ in range(rng.integers(0, 2)):
            rings.insert(int(rng.integers(len(rings) + 1)), [1.5, 2, 3, 4][: int(rng.choice([0, 2, 4]))])
        return rings
    bitmap = np.zeros((height, width), np.uint8, "F")
    bitmap[max(int(y), 0) : max(int(y + h), 0), max(int(x), 0) : max(int(x + w), 0)] = 1
    bitmap[rng.random((height, width)) < rng.choice([0, 0.1, 0.5])] ^= 1
    if rng.random() < 0.5:
        return {"size": [height, width], "counts": coco_mask.encode(bitmap)["counts"].decode()}
    flat = bitmap.ravel("F")
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [2]])))
    runs = np.diff(np.concatenate([[0], edges])).tolist()
    return {"size": [height, width], "counts": [float(run) for run in runs] if rng.random() < 0.2 else runs}


def write(root: Path, content: dict[str, Any] | bytes, names: list[str], part: str = "val2017") -> Path:
    """Write a part of a data set whose images are not decoded."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / part).mkdir(exist_ok=True)
    for name in names:
        (root / part / name).write_bytes(b"not decoded")
    file = root / "annotations" / f"instances_{part}.json"
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return file


def detect(split: CocoSplit, rng: np.random.Generator) -> CocoEvaluator:
    """Return an evaluator with random detections, many near the ground truth and many of equal score."""
    evaluator = CocoEvaluator(nn.Cell(), split)
    classes, truth = len(split.class_names), split.truth
    for image in range(len(split)):
        height, width = split.size(image)
        rows = np.flatnonzero(truth.images == image) if truth is not None else np.zeros(0, int)
        count = int(rng.choice([0, 3, 8, 120], p=[0.1, 0.4, 0.45, 0.05]))
        boxes, labels, masks = np.zeros((count, 4), np.float32), rng.integers(0, classes, count), []
        for k in range(count):
            x, y, w, h = rng.uniform(0, 1, 4) * [width, height, width, height]
            bitmap = rng.random((height, width)) < 0.3
            if len(rows) and rng.random() < 0.8:
                row = int(rng.choice(rows))
                x, y, w, h = truth.boxes[row] + rng.normal(0, rng.choice([0, 1]), 4)
                labels[k] = truth.labels[row]
                bitmap = coco_mask.decode(split.segmentations.encoded(row, height, width)).astype(bool)
                bitmap ^= rng.random((height, width)) < rng.choice([0, 0.05, 0.3])
            boxes[k] = np.clip((x, y, x + w, y + h), -1e6, 1e6)
            masks.append(encode_rle(bitmap, height, width))
        scores = np.round(rng.random(count), int(rng.choice([1, 6])))
        evaluator.detected.add(image, boxes, scores.astype(np.float32), labels, masks)
    return evaluator


def by_pycocotools(file: Path, results: Path, kinds: Iterable[str] = KINDS) -> Numbers:
    """Return pycocotools' numbers for a raw file, completed as its guide says, with ids of annotations from 1."""
    content = complete(json.loads(file.read_text(encoding="utf-8-sig")))
    truth, values = COCO(), {}
    with contextlib.redirect_stdout(io.StringIO()):
        truth.dataset = content
        truth.createIndex()
        rows = json.loads(results.read_text("utf-8"))
        found = truth.loadRes(rows) if rows else COCO()
        if not rows:
            found.dataset = {**content, "annotations": []}
            found.createIndex()
        for kind in kinds:
            evaluation = COCOeval(truth, found, kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            stats = (None if value == -1 else value for value in evaluation.stats.tolist())
            values |= {metric_key(kind, name): value for name, value in zip(NUMBERS, stats, strict=True)}
    return values


def complete(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a file as pycocotools needs it: the entries that it may leave out, and no short rings."""
    content = {"info": {}, **copy.deepcopy(content)}
    sizes = {image["id"]: (int(image["height"]), int(image["width"])) for image in content["images"]}
    for image in content["images"]:
        image["height"], image["width"] = sizes[image["id"]]
    for number, annotation in enumerate(content["annotations"], 1):
        annotation["id"], annotation["iscrowd"] = number, int(annotation.get("iscrowd") or 0)
        annotation["bbox"] = list(map(float, annotation["bbox"]))
        size, mask = sizes[annotation["image_id"]], annotation["segmentation"]
        if isinstance(mask, list):
            mask = coco_mask.merge(coco_mask.frPyObjects([ring for ring in mask if len(ring) >= 6], *size))
        elif isinstance(mask["counts"], list):
            mask = coco_mask.frPyObjects({"size": list(size), "counts": mask["counts"]}, *size)
        else:
            mask = {"size": list(size), "counts": mask["counts"]}
        annotation["segmentation"] = mask
        if annotation.get("area") is None:
            annotation["area"] = int(coco_mask.area(mask))
    return content


def compare(split: CocoSplit, folder: Path, rng: np.random.Generator) -> str:
    """Evaluate random detections and return how the numbers differ from pycocotools'; empty if they don't."""
    evaluator = detect(split, rng)
    values = evaluator.compute(Ranks()).values
    evaluator.write_results(folder / "results.json")
    expected = by_pycocotools(split.annotation_file, folder / "results.json")
    different = [f"{key} {values[key]} instead of {value}" for key, value in expected.items() if values[key] != value]
    return ", ".join(different)
