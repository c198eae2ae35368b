"""Compare the input pipeline of detection with PyTorch's DataLoader: python benchmarks/coco_data.py --workers 2.

Both read the same generated images and annotations with the transforms of Swin Transformer's recipe. Rounds alternate,
and the results are medians. CPU time includes all threads and processes and the start-up of the workers. This
project's batches also hold sampled anchors and cropped masks, which mmdetection computes on the device.
Two threads build twice the batches of one thread. On free cores they need as long as one, plus the time under the
interpreter's lock that they can't share; on a busy machine the ratio says nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import cv2
from coco_scale import CLASSES, write_split
from data import measure, show_ratios
from installed import installed

from msg_ms.cli import run_command_line
from msg_ms.config import load_config
from msg_ms.data.coco.split import load_coco
from msg_ms.data.detection import DetectionTrainDataset

PEER = "PyTorch DataLoader"


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU time per image and images/s, relative to PyTorch.")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("train2017", "val2017"):
            write_split(root, name, args.images, round(args.images * 860 / 118))
        config = load_config(None, DATA__DATA_PATH=folder, DATA__BATCH_SIZE=args.batch)
        train = load_coco(config.data, CLASSES, training=True)[0]
        data = DetectionTrainDataset(train, config.data, config.detection, 0, args.workers, blocks=12)
        runs = {"msg_ms": lambda: data.batches(0, 1)}
        if installed([PEER]):
            import coco_peer

            file, images = str(train.annotation_file), str(train.images_dir)
            runs[PEER] = lambda: coco_peer.loader(file, images, args.batch, args.workers)
        report = measure(runs, args.rounds)
        lock = lock_share(data, args.rounds)
    show_ratios("training", report, PEER)
    print(f"two threads: {lock:.2f} times the time of one", file=sys.stderr)
    print(json.dumps({"images": args.images, "rounds": args.rounds, "two_threads_over_one": lock, **report}))


def lock_share(data: DetectionTrainDataset, rounds: int) -> float:
    """Return the time of two threads that build the same number of batches each, over the time of one."""
    cv2.setNumThreads(1)
    parts = list(data.order.batches(0, 1))[:12]

    def build() -> None:
        for part in parts:
            data.build_batch(*part)

    ratios = []
    for _ in range(rounds):
        seconds = []
        for count in (1, 2):
            threads = [threading.Thread(target=build) for _ in range(count)]
            begin = time.perf_counter()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            seconds.append(time.perf_counter() - begin)
        ratios.append(seconds[1] / seconds[0])
    return statistics.median(ratios)


if __name__ == "__main__":
    run_command_line(main)
