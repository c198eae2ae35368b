"""Measure the evaluation of detections without the model: python benchmarks/coco_evaluation.py --folder coco_scale.

The data set is that of ``coco_scale.py``, written if it is missing. Each image has 100 detections: its objects, moved
a little, and random boxes of ten classes, with masks of 28 x 28 probabilities. Each rank pastes and encodes the masks
of its images. pycocotools runs once, on rank 0.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
from coco_scale import CLASSES, write_split
from mindspore import Tensor

from msg_ms.cli import run_command_line
from msg_ms.config import load_config
from msg_ms.data.coco.split import CocoSplit, load_coco
from msg_ms.engine.ranks import Ranks
from msg_ms.tasks.coco_evaluator import CocoEvaluator

CELLS = 28


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU seconds per evaluation of detections.")
    parser.add_argument("--folder", type=Path, required=True, help="where the data set is, or is written")
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--detections", type=int, default=100)
    args = parser.parse_args()
    for name in ("train2017", "val2017"):
        if not (args.folder / "annotations" / f"instances_{name}.json").exists():
            write_split(args.folder, name, args.images, round(args.images * 860 / 118))
    config = load_config(None, DATA__DATA_PATH=str(args.folder))
    split = load_coco(config.data, CLASSES, training=False)[1]
    evaluator = CocoEvaluator(None, split)
    rng, spent = np.random.default_rng(0), {"masks": 0.0}
    for index in range(min(args.images, len(split))):
        batch, outputs = detections(split, index, args.detections, rng)
        begin = time.process_time()
        evaluator.update(batch, outputs)
        spent["masks"] += time.process_time() - begin
    begin = time.process_time()
    metrics = evaluator.compute(Ranks())
    spent["pycocotools"] = time.process_time() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures = {f"{name}_cpu_seconds": round(value, 1) for name, value in spent.items()}
    print(json.dumps({"images": args.images, **figures, "peak_mb": round(peak), "box_AP": metrics.values["bbox_mAP"]}))


def detections(split: CocoSplit, index: int, count: int, rng: np.random.Generator) -> tuple[tuple, tuple]:
    """Return a batch of one image, and the outputs of a detector for it."""
    height, width = split.size(index)
    own = split.objects(index)
    sides = np.sort(rng.random((count, 2, 2)), 1) * [width, height]
    boxes = sides.reshape(count, 4)
    boxes[: len(own.boxes)] = own.boxes[:count] + rng.normal(0, 3, own.boxes[:count].shape)
    labels = rng.choice(rng.integers(0, CLASSES, 10), count)  # a detector finds few classes in an image
    labels[: len(own.boxes)] = own.labels[:count]
    y, x = (np.mgrid[:CELLS, :CELLS] - (CELLS - 1) / 2) / (CELLS / 2)
    masks = np.clip(1.2 - x**2 - y**2 + rng.normal(0, 0.2, (count, CELLS, CELLS)), 0, 1)
    scores = np.sort(rng.random(count))[::-1]
    outputs = (boxes, scores, labels, masks, np.ones(count))
    kinds = (np.float32, np.float32, np.int32, np.float32, np.bool_)
    arrays = tuple(Tensor(values[None].astype(kind)) for values, kind in zip(outputs, kinds, strict=True))
    return (np.array([[height, width]]), np.array([index]), np.array([1.0])), arrays


if __name__ == "__main__":
    run_command_line(main)
