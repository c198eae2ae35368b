"""Evaluate a checkpoint: python eval.py --cfg F --data-path D --resume X.ckpt."""

from __future__ import annotations

import sys
from pathlib import Path

from msg_ms.checkpoint import load_for_inference
from msg_ms.cli import config_from_arguments, config_parser, require, run_command_line
from msg_ms.engine.evaluate import Evaluation
from msg_ms.engine.runtime import start
from msg_ms.tasks import build_task


def main() -> None:
    """Print the checkpoint's metrics on the validation data."""
    parser = config_parser("Evaluate a checkpoint on the validation data.")
    config = config_from_arguments(parser.parse_args(), EVAL_MODE=True)
    checkpoint = Path(require(config.model.resume, "--resume"))
    require(config.data.data_path, "--data-path")
    runtime = start(config, build_task)  # device, ranks, precision, task, compile cache
    task, ranks = runtime.task, runtime.ranks

    model = task.build_model()
    lines, metadata = load_for_inference(model, checkpoint)
    for line in (*lines, *task.check_inference(checkpoint, metadata)) if ranks.is_main else ():
        print(line, file=sys.stderr)
    task.optimize_for_inference(model, strassen=False)  # the same bits as validation during training
    evaluation = Evaluation(model, task.evaluator(model), task.eval_data(runtime.shard, runtime.workers), ranks)
    if runtime.cache is not None:
        with runtime.cache.use(f"evaluate {evaluation.data.signatures}"):
            evaluation.compile_graphs()
    metrics = evaluation.run()
    if ranks.is_main:
        print(f"{checkpoint}: {metrics}")
    metrics.require_finite()


if __name__ == "__main__":
    run_command_line(main)
