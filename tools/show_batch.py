"""Draw augmented training images with their labels: python tools/show_batch.py --cfg F --data-path D.

For detection, boxes and masks of the ground truth are drawn as the model gets them.
"""

from __future__ import annotations

from pathlib import Path

from msg_ms.cli import config_from_arguments, config_parser, path_argument, require, run_command_line
from msg_ms.config import load_config
from msg_ms.data.pipeline import WHOLE
from msg_ms.errors import UserError
from msg_ms.tasks import build_task
from msg_ms.visualize.contact_sheet import check_ours, write_sheet


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
    # The device would erase and mix images that arrive as uint8, with the same result.
    task = build_task(load_config(config, DATA__NORMALIZE_ON_DEVICE=False))
    data = task.train_data(WHOLE, workers=1)
    batch = next(data.batches(args.step, args.step // data.steps + 1))
    drawings, tile = task.draw_batch(batch)
    images, captions = map(list, zip(*drawings, strict=True))
    write_sheet(args.picture, images, captions, tile)
    print(f"wrote {args.picture}: {len(images)} images of step {args.step}")


if __name__ == "__main__":
    run_command_line(main)
