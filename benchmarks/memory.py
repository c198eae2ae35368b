"""Measure a training step's memory with and without TRAIN.USE_CHECKPOINT: python benchmarks/memory.py --model msg_base.

Each setting runs in its own process. "pool" is the peak of MindSpore's memory pool, on GPU and Ascend the device
memory. "process" is the peak of the whole process, with the compiler and the workspaces of the CPU kernels.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys

import mindspore as ms
import numpy as np
from models import CLASSIFIERS, classifier

from msg_ms.cli import run_command_line
from msg_ms.config import load_config
from msg_ms.data.pipeline import drop_path_noise
from msg_ms.engine.device import setup_device
from msg_ms.engine.optim import build_optimizer
from msg_ms.engine.train_step import LossAndGradients, OptimizerStep, build_step
from msg_ms.tasks.classification import ClassificationLoss


def main() -> None:
    parser = argparse.ArgumentParser(description="Peak memory of two training steps, with and without recomputation.")
    parser.add_argument("--model", choices=list(CLASSIFIERS), default="msg_base")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--child", choices=["saved", "recomputed"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(args.model, args.batch, args.child == "recomputed")))
        return
    results = {}
    for child in ("saved", "recomputed"):
        line = [sys.executable, __file__, "--model", args.model, "--batch", str(args.batch), "--child", child]
        environment = {**os.environ, "MS_DEV_RUNTIME_CONF": "memory_statistics:True"}
        output = subprocess.run(line, env=environment, check=True, capture_output=True, encoding="utf-8").stdout
        (result,) = (json.loads(row) for row in output.splitlines() if row.startswith("{"))
        pool = max(int(size) for size in re.findall(r"actual peak used mem:(\d+)M", output))
        results[child] = {"pool": pool, **result}
    for memory in ("pool", "process"):
        saved, recomputed = results["saved"][memory], results["recomputed"][memory]
        print(f"{memory:8}  {saved:6} MB  with USE_CHECKPOINT {recomputed:6} MB  ({recomputed / saved - 1:+.0%})")
    print(f"same losses: {results['saved']['losses'] == results['recomputed']['losses']}")


def measure(name: str, batch: int, recompute: bool) -> dict:
    """Return the losses of two steps and the peak memory of the process in MB."""
    setup_device("CPU", seed=1)
    model = classifier(name)
    if recompute:
        model.set_grad_checkpointing()
    optimizer = build_optimizer(load_config(None).train, model.trainable_params())
    gradients = LossAndGradients(ClassificationLoss(model, 0.1), optimizer.targets)
    step = build_step(gradients, OptimizerStep(optimizer, 5.0), 1)
    draws = np.random.RandomState(0)
    images, labels = draws.randn(batch, 3, *model.img_size).astype(np.float32), np.zeros(batch, np.int32)
    depth = sum(model.depths)
    losses = [step.run([(images, labels, drop_path_noise(depth, batch, 0, k))], 1e-3) for k in range(2)]
    ms.runtime.synchronize()
    return dict(losses=losses, process=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


if __name__ == "__main__":
    run_command_line(main)
