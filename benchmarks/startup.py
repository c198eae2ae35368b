"""Measure the compilation of the training step, first and second start: python benchmarks/startup.py.

Every start is its own process, and rounds alternate between the models. The second start reads the graph from the cache
(COMPILE_CACHE) that the first one filled. The results are ratios of medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from models import CLASSIFIERS, classifier

from msg_ms.cli import run_command_line
from msg_ms.config import load_config
from msg_ms.engine.compile_cache import CompileCache
from msg_ms.engine.device import setup_device
from msg_ms.engine.optim import build_optimizer
from msg_ms.engine.train_step import LossAndGradients, OptimizerStep, TrainStep
from msg_ms.tasks.classification import ClassificationLoss


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds to compile the training step, as ratios, on CPU.")
    parser.add_argument("--model", nargs="+", choices=list(CLASSIFIERS), default=["msg_tiny", "msg_base"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print("\n" + json.dumps(compile_once(args.model[0], args.child)), flush=True)
        os._exit(0)
    seconds = {f"{model}, {start} start": [] for model in args.model for start in ("first", "second")}
    for _ in range(args.rounds):
        for model in args.model:
            with tempfile.TemporaryDirectory() as folder:
                for start in ("first", "second"):
                    line = [sys.executable, __file__, "--model", model, "--child", folder]
                    done = subprocess.run(line, capture_output=True, encoding="utf-8", check=True)
                    seconds[f"{model}, {start} start"].append(json.loads(done.stdout.splitlines()[-1]))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for model in args.model:
        first, second = medians[f"{model}, first start"], medians[f"{model}, second start"]
        ratio = first / medians[f"{args.model[0]}, first start"]
        print(f"{model}: first start {ratio:.2f} of {args.model[0]}'s, second {first / second:.1f} times faster")
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "startup.json").write_text(json.dumps(medians, indent=1), encoding="utf-8")


def compile_once(name: str, folder: str) -> float:
    """Return the seconds to compile a model's training step at batch 2, with the cache in ``folder``."""
    setup_device("CPU", 0)
    model = classifier(name)
    optimizer = build_optimizer(load_config(None).train, model.trainable_params())
    step = TrainStep(LossAndGradients(ClassificationLoss(model, 0.1), optimizer.targets), OptimizerStep(optimizer, 5.0))
    images, labels = ((2, 3, *model.img_size), np.float32), ((2,), np.int32)
    noise = ((sum(model.depths), 2, 2), np.float32)
    begin = time.perf_counter()
    with CompileCache(Path(folder), name).use("training step"):
        step.compile_graphs([(images, labels, noise)])
    return time.perf_counter() - begin


if __name__ == "__main__":
    run_command_line(main)
