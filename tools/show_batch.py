"""Draw augmented training pictures with their labels: python tools/show_batch.py --cfg F --data-path D."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from msg_ms.cli import config_from_arguments, config_parser, require, run_command_line
from msg_ms.data import TrainDataset, load_folders
from msg_ms.data.transforms import MEAN, STD
from msg_ms.visualize.contact_sheet import write_sheet


def main() -> None:
    parser = config_parser("Draw one batch of training pictures as the model sees them.")
    parser.add_argument("--picture", type=Path, default=Path("batch.png"), metavar="PNG", help="where to draw")
    parser.add_argument("--step", type=int, default=0, help="update whose batch is drawn")
    args = parser.parse_args()
    config = config_from_arguments(args)
    require(config.data.data_path, "--data-path")
    folder, _ = load_folders(config.data, config.model.num_classes, training=True)
    data = TrainDataset(
        folder, config.data, config.aug, config.model.num_classes, config.model.label_smoothing, config.seed, workers=1
    )
    images, labels = next(data.batches(args.step, args.step // data.steps + 1))
    pixels = [as_pixels(image) for image in images]
    write_sheet(args.picture, pixels, [describe(label, folder.classes) for label in labels])
    print(f"wrote {args.picture}: {len(images)} pictures of update {args.step}")


def as_pixels(image: np.ndarray) -> np.ndarray:
    """Undo the normalisation: (3, H, W) -> uint8 (H, W, 3); an erased part's noise is cut to what can be shown."""
    values = image.transpose(1, 2, 0) * STD + MEAN
    return np.clip(values * 255 + 0.5, 0, 255).astype(np.uint8)


def describe(label: np.ndarray, classes: tuple[str, ...]) -> str:
    """The class, or of a mixed label the two classes with their parts."""
    if label.ndim == 0:
        return classes[label]
    parts = label - label.min()  # without what smoothing spreads over all classes
    parts = parts / max(parts.sum(), 1e-12)
    best = [i for i in np.argsort(-parts)[:2] if parts[i] > 0.01]
    return " + ".join(f"{classes[i]} {parts[i]:.0%}" if len(best) > 1 else classes[i] for i in best)


if __name__ == "__main__":
    run_command_line(main)
