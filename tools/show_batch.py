"""Draw augmented training images with their labels: python tools/show_batch.py --cfg F --data-path D."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from msg_ms.cli import config_from_arguments, config_parser, require, run_command_line
from msg_ms.data import TrainDataset, load_folders
from msg_ms.data.preprocessing import denormalize
from msg_ms.errors import UserError
from msg_ms.visualize.contact_sheet import write_sheet


def main() -> None:
    """Draw the first batch of a training step."""
    parser = config_parser("Draw one batch of augmented training images.")
    parser.add_argument("--picture", type=Path, default=Path("batch.png"), metavar="PNG", help="file to write")
    parser.add_argument("--step", type=int, default=0, help="training step of the batch")
    args = parser.parse_args()
    if args.step < 0:
        raise UserError(f"--step {args.step}: must be at least 0")
    config = config_from_arguments(args)
    require(config.data.data_path, "--data-path")
    folder, _ = load_folders(config.data, config.model.num_classes, training=True)
    data = TrainDataset(
        folder, config.data, config.aug, config.model.num_classes, config.model.label_smoothing, config.seed, workers=1
    )
    images, labels = next(data.batches(args.step, args.step // data.steps + 1))
    captions = [describe(label, folder.classes) for label in labels]
    write_sheet(args.picture, [denormalize(image) for image in images], captions)
    print(f"wrote {args.picture}: {len(images)} images of step {args.step}")


def describe(label: np.ndarray, classes: tuple[str, ...]) -> str:
    """Return the class name, or for a mixed label both names with their weights."""
    if label.ndim == 0:
        return classes[label]
    weights = label - label.min()  # remove the label smoothing
    weights = weights / max(weights.sum(), 1e-12)
    best = [i for i in np.argsort(-weights)[:2] if weights[i] > 0.01]
    return " + ".join(f"{classes[i]} {weights[i]:.0%}" if len(best) > 1 else classes[i] for i in best)


if __name__ == "__main__":
    run_command_line(main)
