"""How the input pipelines scale with threads: part of benchmarks/data.py --scaling.

As a script it loads images for some seconds, for py-spy to sample: scaling.py FOLDER RECIPE BATCH SECONDS.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

from msg_ms.config import load_config
from msg_ms.data import EvalDataset, TrainDataset, scan_folder

SMOOTHING, CLASSES = 0.1, 1000
CORES = (16, 32)
SAMPLES_PER_SECOND, SAMPLED_SECONDS = 500, 8
FORMULA = "images/s(n) = 1 / (serial + (t1 - serial) / n), t1 = s per image on one worker, serial = 2 t2 - t1"


def ours(folder: str, training: bool, batch: int, workers: int, epochs: int = 1) -> Iterator:
    """Return this package's batches with the paper's recipe."""
    config, images = load_config(None, DATA__BATCH_SIZE=batch), scan_folder(folder)
    if training:
        return TrainDataset(images, config.data, config.aug, CLASSES, SMOOTHING, 0, workers).batches(0, epochs)
    return chain.from_iterable(EvalDataset(images, config.data, True, workers).batches() for _ in range(epochs))


def speed(batches: Iterable, seconds: float, skip: int) -> float:
    """Return images per second over some seconds, after ``skip`` batches."""
    batches = iter(batches)
    for _ in range(skip):
        next(batches)
    images, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        images += len(next(batches)[0])
    return images / (time.perf_counter() - begin)


def compare_scaling(sides: dict[str, Callable[[bool, int], Iterable]], rounds: int, seconds: float) -> dict:
    """Return the medians of images/s by recipe, side and number of workers, from alternating runs."""
    figures = {}
    for training in (True, False):
        runs: dict[tuple[str, int], list[float]] = {(name, n): [] for name in sides for n in (1, 2)}
        for _ in range(rounds):
            for (name, workers), values in runs.items():
                batches = sides[name](training, workers)
                values.append(speed(batches, seconds, skip=4 * workers))
                del batches
        figures["train" if training else "eval"] = {
            name: {str(n): statistics.median(runs[name, n]) for n in (1, 2)} for name in sides
        }
    return figures


def project(one: float, two: float, cores: int) -> float:
    """Return the images/s on ``cores`` by Amdahl's law from those of one worker and of two."""
    alone, together = 1 / one, 1 / two
    serial = max(0.0, 2 * together - alone)
    return 1 / (serial + (alone - serial) / cores)


def show_scaling(figures: dict, locks: dict[str, float | None]) -> None:
    """Print the speed-up of two workers, the time under the lock and the projections."""
    print(FORMULA, file=sys.stderr)
    for recipe, sides in figures.items():
        for name, speeds in sides.items():
            one, two = speeds["1"], speeds["2"]
            projected = ", ".join(f"{project(one, two, n):,.0f} on {n} cores" for n in CORES)
            line = f"{recipe}, {name}: {one:.0f} and {two:.0f} images/s with 1 and 2 workers, {two / one:.2f} times"
            print(f"{line}; projected {projected}", file=sys.stderr)
        lock = locks.get(recipe)
        print(
            f"{recipe}: " + ("py-spy is missing" if lock is None else f"{lock:.3f} ms per image under the lock"),
            file=sys.stderr,
        )


def milliseconds_under_lock(folder: str, training: bool, batch: int) -> float | None:
    """Return the milliseconds per image during which a thread of ours holds the interpreter's lock.

    Returns:
        The time from py-spy's samples; None without py-spy.
    """
    profiler = shutil.which("py-spy") or shutil.which("py-spy", path=Path(sys.executable).parent)
    if profiler is None:
        return None
    recipe = "train" if training else "eval"
    line = [sys.executable, __file__, folder, recipe, str(batch), str(2 * SAMPLED_SECONDS)]
    with (
        tempfile.NamedTemporaryFile("r", encoding="utf-8") as stacks,
        subprocess.Popen(line, stdout=subprocess.PIPE, encoding="utf-8") as child,
    ):
        next(text for text in child.stdout if text.startswith("loading"))
        options = ["--gil", "--nonblocking", "--format", "raw", "--output", stacks.name]
        timing = ["--rate", str(SAMPLES_PER_SECOND), "--duration", str(SAMPLED_SECONDS)]
        sampling = [profiler, "record", *options, *timing, "--pid", str(child.pid)]
        subprocess.run(sampling, check=True, capture_output=True)
        samples = sum(int(text.rsplit(" ", 1)[1]) for text in stacks)
        rate = json.loads(child.stdout.read())
    return 1000 * samples / (SAMPLES_PER_SECOND * SAMPLED_SECONDS) / rate


def main(folder: str, recipe: str, batch: str, seconds: str) -> None:
    batches = ours(folder, recipe == "train", int(batch), 1, epochs=10**6)
    next(batches)
    print("loading", flush=True)
    print(json.dumps(speed(batches, float(seconds), skip=1)), flush=True)
    os._exit(0)  # without waiting for the worker


if __name__ == "__main__":
    main(*sys.argv[1:])
