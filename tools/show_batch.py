"""Draw augmented training images with their labels: python tools/show_batch.py --cfg F --data-path D.

For detection, boxes and masks of the ground truth are drawn as the model gets them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from msg_ms.boxes.batches import DetectionBatch
from msg_ms.boxes.masks import paste_masks
from msg_ms.boxes.rle import decode_rle
from msg_ms.cli import config_from_arguments, config_parser, path_argument, require, run_command_line
from msg_ms.data.classification import ClassificationBatch
from msg_ms.data.pipeline import WHOLE
from msg_ms.data.pixels.preprocessing import denormalize
from msg_ms.errors import UserError
from msg_ms.tasks import build_task
from msg_ms.tasks.classification import ClassificationTask
from msg_ms.tasks.detection import DetectionTask
from msg_ms.visualize.contact_sheet import TILE, check_ours, write_sheet
from msg_ms.visualize.detections import SMALLEST, draw_objects


def main() -> None:
    """Draw the first batch of a training step."""
    parser = config_parser("Draw one batch of augmented training images.")
    parser.add_argument("--picture", type=path_argument, default=Path("batch.png"), metavar="PNG", help="file to write")
    parser.add_argument("--step", type=int, default=0, help="training step of the batch")
    args = parser.parse_args()
    if args.step < 0:
        raise UserError(f"--step {args.step}: must be at least 0")
    check_ours(args.picture)
    config = config_from_arguments(args)
    require(config.data.data_path, "--data-path")
    task = build_task(config)
    data = task.train_data(WHOLE, workers=1)
    batch = next(data.batches(args.step, args.step // data.steps + 1))
    draw, tile = {ClassificationTask: (draw_classes, TILE), DetectionTask: (draw_ground_truth, SMALLEST)}[type(task)]
    images, captions = draw(task, batch)
    write_sheet(args.picture, images, captions, tile)
    print(f"wrote {args.picture}: {len(images)} images of step {args.step}")


def draw_classes(task: ClassificationTask, batch: ClassificationBatch) -> tuple[list[np.ndarray], list[str]]:
    """Return images and their classes."""
    captions = [describe(label, task.folders[0].classes) for label in batch.labels]
    return [denormalize(image) for image in batch.images], captions


def describe(label: np.ndarray, classes: tuple[str, ...]) -> str:
    """Return the class name, or for a mixed label both names with their weights."""
    if label.ndim == 0:
        return classes[label]
    weights = label - label.min()  # remove the label smoothing
    weights = weights / max(weights.sum(), 1e-12)
    best = [i for i in np.argsort(-weights)[:2] if weights[i] > 0.01]
    return " + ".join(f"{classes[i]} {weights[i]:.0%}" if len(best) > 1 else classes[i] for i in best)


def draw_ground_truth(task: DetectionTask, batch: DetectionBatch) -> tuple[list[np.ndarray], list[str]]:
    """Return images with boxes and masks, if there are any, and the number of objects."""
    names, drawings, captions = task.splits[0].class_names, [], []
    truth = (array for array in batch.gt if array is not None)
    for image, size, boxes, labels, valid, *crops in zip(batch.images, batch.img_shapes, *truth, strict=True):
        height, width = size.astype(int)
        masks = paste_masks(crops[0][valid] / 255, crops[1][valid], int(height), int(width)) if crops else []
        pixels, labels = denormalize(image[:, :height, :width]), labels[valid].tolist()
        texts = [names[label] for label in labels]
        drawings.append(draw_objects(pixels, boxes[valid], labels, texts, [decode_rle(mask) for mask in masks]))
        captions.append(f"{width} x {height}, {len(labels)} objects")
    return drawings, captions


if __name__ == "__main__":
    run_command_line(main)
