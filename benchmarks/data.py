"""Compare the input pipeline with PyTorch's DataLoader and timm: python benchmarks/data.py --workers 2.

Both read the same generated JPEG files of 500 x 375 pixels with the paper's recipe. Rounds alternate, and the result is
the ratio of the medians. CPU time includes all threads and processes and the start-up of the workers.
The peer needs torch, torchvision and timm. --scaling measures one worker and two instead, and the time under the
interpreter's lock if py-spy is installed.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
from installed import installed
from scaling import compare_scaling, milliseconds_under_lock, ours, show_scaling

from msg_ms.cli import run_command_line

PEER = "PyTorch and timm"


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU time per image and images/s, relative to PyTorch.")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scaling", action="store_true", help="compare one worker with two")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a run with --scaling")
    args = parser.parse_args()
    loaders: dict[str, Callable[..., Iterable]] = {"msg_ms": ours}
    if installed([PEER]):
        import timm_peer

        loaders[PEER] = timm_peer.loader
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), args.images)
        if args.scaling:
            scale(loaders, folder, args)
            return
        report = {}
        for training in (True, False):
            runs = {
                name: lambda load=load, t=training: load(folder, t, args.batch, args.workers)
                for name, load in loaders.items()
            }
            report["train" if training else "eval"] = measure(runs, args.rounds)
    for recipe, sides in report.items():
        show_ratios(recipe, sides, PEER)
    print(json.dumps({"images": args.images, "workers": args.workers, "rounds": args.rounds, **report}))


def show_ratios(title: str, sides: dict[str, dict[str, float]], peer: str) -> None:
    """Print the figures of ``measure`` relative to a peer's, if it took part."""
    own, other = sides["msg_ms"], sides.get(peer)
    if other is None:
        return
    time, speed = (own[figure] / other[figure] for figure in ("cpu_ms_per_image", "images_per_second"))
    print(f"{title}: CPU time per image {time:.2f} of that of {peer}, images/s {speed:.2f} times", file=sys.stderr)


def scale(loaders: dict[str, Callable[..., Iterable]], folder: str, args: argparse.Namespace) -> None:
    """Print the speed of one worker and of two."""
    epochs = {"msg_ms": 10**6, PEER: 10**3}
    sides = {
        name: lambda training, workers, name=name: loaders[name](folder, training, args.batch, workers, epochs[name])
        for name in loaders
    }
    figures = compare_scaling(sides, args.rounds, args.seconds)
    locks = {name: milliseconds_under_lock(folder, name == "train", args.batch) for name in figures}
    show_scaling(figures, locks)
    print(json.dumps({"images": args.images, "rounds": args.rounds, "under_lock_ms": locks, **figures}))


def write_images(folder: Path, count: int) -> None:
    """Write JPEG files with structure on several scales, about as large as ImageNet's."""
    rng = np.random.RandomState(0)
    for i in range(count):
        target = folder / f"class{i % 8}"
        target.mkdir(exist_ok=True)
        pixels = np.zeros((375, 500, 3), np.float32)
        for side in (4, 16, 64, 256):
            noise = rng.standard_normal((side, side, 3)).astype(np.float32)
            pixels += cv2.resize(noise, (500, 375), interpolation=cv2.INTER_CUBIC) * 100 / side**0.5
        cv2.imwrite(
            str(target / f"{i:05d}.JPEG"),
            np.clip(pixels + 118, 0, 255).astype(np.uint8),
            [cv2.IMWRITE_JPEG_QUALITY, 90],
        )


def measure(runs: dict[str, Callable[[], Iterable]], rounds: int) -> dict[str, dict[str, float]]:
    """Return the medians of CPU milliseconds per image and of images per second, without the first round."""
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for n in range(rounds + 1):
        for name, run in runs.items():
            cpu, begin = cpu_seconds(), time.perf_counter()
            images = sum(len(batch[0]) for batch in run())
            if n > 0:
                spent = 1000 * (cpu_seconds() - cpu) / images
                figures[name].append((spent, images / (time.perf_counter() - begin)))
    return {
        name: {
            "cpu_ms_per_image": statistics.median(cpu for cpu, _ in values),
            "images_per_second": statistics.median(speed for _, speed in values),
        }
        for name, values in figures.items()
    }


def cpu_seconds() -> float:
    """Return the CPU time of this process and of its finished children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    run_command_line(main)
