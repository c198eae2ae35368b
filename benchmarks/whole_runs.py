"""Compare whole training runs with PyTorch, over several seeds.

    git clone https://github.com/hustvl/MSG-Transformer
    python benchmarks/whole_runs.py --paper MSG-Transformer --data-path demo/digits --output whole_runs
    python benchmarks/whole_runs.py --cfg configs/coco/digits_scenes.yaml --seeds 2 \\
        --data-path demo/scenes --output whole_runs

Both sides train the same configuration on the same images. A classifier trains with the paper's own code, in
``paper_code.py``. Each side has its own random values and first weights then, so that means are compared, not runs. A
detector trains with mmdetection's losses, in ``torch_detector_run.py``, from the same weights and on the same batches.
A run that is already in the output folder isn't repeated. ``--torch-python`` names a Python with torch, and with
torchvision, timm and yacs for the paper's code or with this package for detectors.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import subprocess
import sys
from pathlib import Path

from installed import installed

from msg_ms.cli import path_argument, run_command_line
from msg_ms.config import load_config

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(__file__).parent
# For each task the metrics' keys and names, and how many decimals are printed.
METRICS = {"classification": {"top1": "top-1"}, "detection": {"bbox_mAP": "box AP", "segm_mAP": "mask AP"}}
DIGITS = {"classification": 2, "detection": 3}
Curve = list[dict[str, float]]  # the metrics after each epoch


def our_run(arguments: argparse.Namespace, seed: int, folder: Path) -> Curve:
    """Train with this package and return the metrics after each epoch."""
    return train_as_here(sys.executable, ROOT / "train.py", arguments, seed, folder)


def torch_run(arguments: argparse.Namespace, seed: int, folder: Path) -> Curve:
    """Train a detector in PyTorch."""
    return train_as_here(arguments.torch_python, FOLDER / "torch_detector_run.py", arguments, seed, folder)


def train_as_here(python: str, program: Path, arguments: argparse.Namespace, seed: int, folder: Path) -> Curve:
    """Train with a program that has the flags of train.py."""
    line = ["--cfg", arguments.cfg, "--data-path", arguments.data_path, "--output", folder, "--device-target", "CPU"]
    execute([python, program, *line, "--opts", "SEED", seed], folder.with_suffix(".log"))
    lines = next(folder.glob("*/*/metrics.jsonl")).read_text("utf-8").splitlines()
    known = {key for keys in METRICS.values() for key in keys}
    return [{key: value for key, value in json.loads(line).items() if key in known} for line in lines]


def paper_run(arguments: argparse.Namespace, seed: int, folder: Path) -> Curve:
    """Train a classifier with the paper's code."""
    line = [FOLDER / "paper_code.py", arguments.paper, arguments.cfg, arguments.data_path, folder, "--seed", seed]
    execute([arguments.torch_python, *line], folder.with_suffix(".log"))
    log = next(folder.glob("*/*/log_rank0.txt")).read_text("utf-8")
    return [{"top1": float(value)} for value in re.findall(r"\* Acc@1 ([\d.]+)", log)]


def execute(line: list, log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as output:
        subprocess.run([str(part) for part in line], stdout=output, stderr=subprocess.STDOUT, check=True)


def mean_and_deviation(values: list[float], digits: int) -> str:
    deviation = f" +- {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"


def compare(ours: list[float], theirs: list[float], digits: int) -> str:
    """Return the difference of two means and its standard error (Welch)."""
    difference = f"difference {statistics.mean(ours) - statistics.mean(theirs):+.{digits}f}"
    if min(len(ours), len(theirs)) < 2:
        return difference
    error = math.sqrt(statistics.variance(ours) / len(ours) + statistics.variance(theirs) / len(theirs))
    return f"{difference}, standard error {error:.{digits}f}"


def print_means(name: str, values: dict[str, list[float]], digits: int) -> None:
    """Print the mean and the deviation of each side, and their difference."""
    line = ", ".join(f"{side} {mean_and_deviation(runs, digits)}" for side, runs in values.items())
    seeds = len(next(iter(values.values())))
    end = f"; {compare(*values.values(), digits)}" if len(values) == 2 else ""
    print(f"{name}, {seeds} seeds: {line}{end}")


def sides_of(task: str, arguments: argparse.Namespace) -> dict:
    """Return the function of each side that can run here, by its name."""
    other = arguments.torch_python != sys.executable
    sides = {"msg_ms": our_run}
    if task == "detection" and (other or installed(["PyTorch eager"])):
        sides["PyTorch"] = torch_run
    if task == "classification" and arguments.paper and (other or installed(["PyTorch and timm"])):
        sides["paper"] = paper_run
    return sides


def finished(run, arguments: argparse.Namespace, side: str, seed: int, epochs: int) -> Curve:
    """Return the metrics of a run, which is started unless its result is in the output folder."""
    result = arguments.output / f"{side}_{seed}.json"
    if not result.exists():
        curve = run(arguments, seed, arguments.output / f"{side}_{seed}")
        assert len(curve) == epochs, f"{result}: {len(curve)} of {epochs} epochs; remove the run's folder"
        result.write_text(json.dumps(curve), "utf-8")
    return json.loads(result.read_text("utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--paper", type=path_argument, help="checkout of the paper's code, for classifiers")
    parser.add_argument("--cfg", type=path_argument, default=ROOT / "configs/digits_p4_win4_64.yaml")
    parser.add_argument("--data-path", type=path_argument, required=True, help="folder of the images")
    parser.add_argument("--output", type=path_argument, required=True, help="folder for the runs")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds (default: %(default)s)")
    parser.add_argument("--torch-python", default=sys.executable, help="Python that runs PyTorch's side")
    arguments = parser.parse_args()
    config = load_config(arguments.cfg)
    sides, digits = sides_of(config.task, arguments), DIGITS[config.task]
    runs: dict[str, list[Curve]] = {side: [] for side in sides}
    for seed in range(arguments.seeds):
        for side, run in sides.items():
            curve = finished(run, arguments, side, seed, config.train.epochs)
            runs[side].append(curve)
            for key, name in METRICS[config.task].items():
                if key in curve[0]:
                    best, last = max(epoch[key] for epoch in curve), curve[-1][key]
                    print(f"{side}, seed {seed}: best {name} {best:.{digits}f}, last {last:.{digits}f}", flush=True)
    for key, name in METRICS[config.task].items():
        if all(key in epoch for curves in runs.values() for curve in curves for epoch in curve):
            values = {side: [[epoch[key] for epoch in curve] for curve in curves] for side, curves in runs.items()}
            print_means(f"best {name}", {side: [*map(max, curves)] for side, curves in values.items()}, digits)
            print_means(f"last {name}", {side: [c[-1] for c in curves] for side, curves in values.items()}, digits)


if __name__ == "__main__":
    run_command_line(main)
