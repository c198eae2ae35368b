"""Compare the training loop with an older version's: python benchmarks/loop.py --before <older checkout> --ranks 2.

A very small classifier trains on one batch that is kept in memory. So neither the model nor the data hide the loop:
reads of device values, collectives, and Python between the steps. Versions alternate, and each run is a job. Prints
images/s as ratios of medians to the first older version, without the first epoch of each run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from first_batch import ROOT, environment, free_port

CONFIG = """
MODEL:
  NAME: loop
  NUM_CLASSES: 2
  MSG: {EMBED_DIM: 16, DEPTHS: [1, 1], NUM_HEADS: [1, 2], WINDOW_SIZE: 4, SHUF_SIZE: [2, 1]}
DATA: {IMG_SIZE: 32, BATCH_SIZE: 4, NUM_WORKERS: 1}
TRAIN: {WARMUP_EPOCHS: 0}
PRINT_FREQ: 100
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Images/s of the training loop, relative to an older version's.")
    parser.add_argument("--before", type=Path, nargs="+", required=True, metavar="CHECKOUT", help="older versions")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300, help="per epoch")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    if "--child" in sys.argv:
        train(*sys.argv[2:])
        return
    args = parser.parse_args()
    checkouts = [*(path.resolve() for path in args.before), ROOT]
    speeds: dict[Path, list[float]] = {checkout: [] for checkout in checkouts}
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), 4 * args.ranks * args.steps)
        for _ in range(args.rounds):
            for checkout in checkouts:
                speeds[checkout].append(run(checkout, Path(folder), args.ranks, args.epochs))
                print(checkout.name, speeds[checkout][-1], file=sys.stderr, flush=True)
    first = statistics.median(speeds[checkouts[0]])
    for checkout, values in speeds.items():
        spread = ", ".join(f"{value / first:.2f}" for value in sorted(values))
        print(f"{checkout.name}: {statistics.median(values) / first:.2f} (all runs: {spread})")


def write_images(folder: Path, count: int) -> None:
    """Write ``data/train`` with links to two images, and ``data/val`` with one of each class."""
    pixels = np.random.default_rng(0).integers(0, 256, (36, 40, 3), np.uint8)
    for label in "ab":
        for part in ("train", "val"):
            (folder / "data" / part / label).mkdir(parents=True)
        source = folder / "data" / "val" / label / "0.png"
        source.write_bytes(cv2.imencode(".png", pixels)[1])
        for i in range(count // 2):
            os.link(source, folder / "data" / "train" / label / f"{i}.png")
    (folder / "loop.yaml").write_text(CONFIG)


def run(checkout: Path, folder: Path, ranks: int, epochs: int) -> float:
    """Return the images/s of one job."""
    with tempfile.TemporaryDirectory() as output:
        launcher = ["msrun", f"--worker_num={ranks}", f"--local_worker_num={ranks}", "--join=True"]
        launcher.append(f"--master_port={free_port()}")
        line = [*(launcher if ranks > 1 else [sys.executable]), __file__, "--child", folder, str(epochs)]
        done = subprocess.run(line, capture_output=True, text=True, cwd=output, env=environment(checkout), timeout=200)
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        return statistics.median(json.loads(Path(output, "speeds.json").read_text())[1:])


def train(folder: str, epochs: str) -> None:
    """Train in this process; the batches are the first one, again and again."""
    import msg_ms
    from msg_ms.config import load_config
    from msg_ms.data.pipeline import TrainPipeline
    from msg_ms.engine.log import RunLog
    from msg_ms.engine.runtime import start
    from msg_ms.engine.trainer import Trainer
    from msg_ms.tasks.classification import ClassificationTask

    def batches(self, first_step, epochs, log=print):
        number, epoch, indices = next(self.order.batches(0, 1))
        batch = self.build_batch(int(number), int(epoch), indices)
        return (batch for _ in range(epochs * self.steps - first_step))

    report, speeds = Trainer._report, {}

    def reported(self, title, progress, norm, lr, meter):
        speeds[progress.epoch] = progress.samples_per_step / meter.seconds  # the last line of an epoch remains
        report(self, title, progress, norm, lr, meter)

    TrainPipeline.batches, Trainer._report = batches, reported
    options = dict(DATA__DATA_PATH=f"{folder}/data", TRAIN__EPOCHS=int(epochs), DEVICE_TARGET="CPU")
    # Later rounds start faster.
    options["COMPILE_CACHE"] = f"{folder}/graphs-{Path(msg_ms.__file__).parents[1].name}"
    runtime = start(load_config(Path(folder, "loop.yaml"), **options), ClassificationTask)
    log = RunLog(runtime.config.run_dir, runtime.ranks.rank)
    Trainer(runtime, runtime.task.build_model(), log).fit()
    log.close()
    if runtime.ranks.is_main:
        Path("speeds.json").write_text(json.dumps(list(speeds.values())))


if __name__ == "__main__":
    main()
