"""Evaluate a checkpoint: python eval.py --cfg F --data-path D --resume X.ckpt."""

from __future__ import annotations

import sys
from pathlib import Path

from msg_ms.checkpoint import load_for_inference
from msg_ms.cli import config_from_arguments, config_parser, path_argument, require, run_command_line
from msg_ms.engine.evaluate import Evaluation
from msg_ms.engine.runtime import start
from msg_ms.tasks import build_task


def main() -> None:
    """Print the checkpoint's metrics on the validation data."""
    parser = config_parser("Evaluate a checkpoint on the validation data.")
    parser.add_argument("--results", type=path_argument, metavar="JSON", help="write all detections in COCO's format")
    parser.add_argument("--per-class", action="store_true", help="print the metrics of each class")
    args = parser.parse_args()
    config = config_from_arguments(args, EVAL_MODE=True)
    checkpoint = Path(require(config.model.resume, "--resume"))
    require(config.data.data_path, "--data-path")
    runtime = start(config, build_task)  # device, ranks, precision, task, compile cache
    task, ranks = runtime.task, runtime.ranks
    task.check_reports(args.results, args.per_class)

    model = task.build_model()
    lines, metadata = load_for_inference(model, checkpoint)
    for line in (*lines, *task.check_inference(checkpoint, metadata)) if ranks.is_main else ():
        print(line, file=sys.stderr)
    task.optimize_for_inference(model, strassen=False)  # the same bits as validation during training
    evaluation = Evaluation.of_run(runtime, model)
    if runtime.cache is not None:
        with runtime.cache.use(f"evaluate {evaluation.data.signatures}"):
            evaluation.compile_graphs()
    metrics = evaluation.run()
    if ranks.is_main:
        print(f"{checkpoint}: {metrics}")
        for line in evaluation.evaluator.per_class() if args.per_class else ():
            print(line)
        if args.results is not None:
            evaluation.evaluator.write_results(args.results)
            print(f"wrote {args.results}")
    metrics.require_finite()


if __name__ == "__main__":
    run_command_line(main)
