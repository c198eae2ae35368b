"""Compare whole training runs with the paper's own PyTorch code, over several seeds.

    git clone https://github.com/hustvl/MSG-Transformer
    python benchmarks/whole_runs.py --paper MSG-Transformer --data-path demo/digits --output whole_runs

Both sides train the same configuration on the same images, each with its own random values and its own first weights,
so that means are compared, not runs. ``paper_code.py`` runs the paper's code. A run that is already in the output
folder isn't repeated. ``--torch-python`` names a Python with torch, torchvision, timm and yacs.
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
PAPER = Path(__file__).with_name("paper_code.py")


def our_run(arguments: argparse.Namespace, seed: int, folder: Path) -> list[float]:
    """Train with this package and return the top-1 accuracy after each epoch."""
    line = ["--cfg", arguments.cfg, "--data-path", arguments.data_path, "--output", folder, "--device-target", "CPU"]
    execute([sys.executable, ROOT / "train.py", *line, "--opts", "SEED", seed], folder.with_suffix(".log"))
    lines = next(folder.glob("*/*/metrics.jsonl")).read_text("utf-8").splitlines()
    return [json.loads(line)["top1"] for line in lines]


def paper_run(arguments: argparse.Namespace, seed: int, folder: Path) -> list[float]:
    """Train with the paper's code and return the top-1 accuracy after each epoch."""
    line = [PAPER, arguments.paper, arguments.cfg, arguments.data_path, folder, "--seed", seed]
    execute([arguments.torch_python, *line], folder.with_suffix(".log"))
    log = next(folder.glob("*/*/log_rank0.txt")).read_text("utf-8")
    return [float(value) for value in re.findall(r"\* Acc@1 ([\d.]+)", log)]


def execute(line: list, log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as output:
        subprocess.run([str(part) for part in line], stdout=output, stderr=subprocess.STDOUT, check=True)


def mean_and_deviation(values: list[float]) -> str:
    deviation = f" +- {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


def compare(ours: list[float], theirs: list[float]) -> str:
    """Return the difference of two means and its standard error (Welch)."""
    difference = statistics.mean(ours) - statistics.mean(theirs)
    if min(len(ours), len(theirs)) < 2:
        return f"difference {difference:+.2f}"
    error = math.sqrt(statistics.variance(ours) / len(ours) + statistics.variance(theirs) / len(theirs))
    return f"difference {difference:+.2f}, standard error {error:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--paper", type=path_argument, help="checkout of the paper's code; without it only ours run")
    parser.add_argument("--cfg", type=path_argument, default=ROOT / "configs/digits_p4_win4_64.yaml")
    parser.add_argument("--data-path", type=path_argument, required=True, help="folder with train/ and val/")
    parser.add_argument("--output", type=path_argument, required=True, help="folder for the runs")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds (default: %(default)s)")
    parser.add_argument("--torch-python", default=sys.executable, help="Python that runs the paper's code")
    arguments = parser.parse_args()
    epochs = load_config(arguments.cfg).train.epochs
    sides = {"msg_ms": our_run}
    same_python = arguments.torch_python == sys.executable
    if arguments.paper and (not same_python or installed(["PyTorch and timm"])):
        sides["paper"] = paper_run
    runs: dict[str, list[list[float]]] = {side: [] for side in sides}
    for seed in range(arguments.seeds):
        for side, run in sides.items():
            result = arguments.output / f"{side}_{seed}.json"
            if not result.exists():
                curve = run(arguments, seed, arguments.output / f"{side}_{seed}")
                assert len(curve) == epochs, f"{result}: {len(curve)} of {epochs} epochs; remove the run's folder"
                result.write_text(json.dumps(curve), "utf-8")
            runs[side].append(json.loads(result.read_text("utf-8")))
            print(f"{side}, seed {seed}: best {max(runs[side][-1]):.2f}, last {runs[side][-1][-1]:.2f}", flush=True)
    for name, pick in (("best", max), ("last", lambda curve: curve[-1])):
        picked = {side: [pick(curve) for curve in curves] for side, curves in runs.items()}
        line = ", ".join(f"{side} {mean_and_deviation(values)}" for side, values in picked.items())
        print(f"{name} top-1, {arguments.seeds} seeds: {line}", end="")
        print(f"; {compare(*picked.values())}" if len(picked) == 2 else "")


if __name__ == "__main__":
    run_command_line(main)
