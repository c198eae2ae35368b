"""Evaluate a checkpoint: python eval.py --cfg F --data-path D --resume X.ckpt."""

from __future__ import annotations

import sys

from msg_ms.cli import config_from_arguments, config_parser, path_argument, require, run_command_line
from msg_ms.engine.checkpoint_run import CheckpointRun
from msg_ms.engine.runtime import start
from msg_ms.engine.task import ReportingEvaluator
from msg_ms.tasks import build_task


def main() -> None:
    """Print the checkpoint's metrics on the validation data."""
    parser = config_parser("Evaluate a checkpoint on the validation data.")
    parser.add_argument("--results", type=path_argument, metavar="JSON", help="write all detections in COCO's format")
    parser.add_argument("--per-class", action="store_true", help="print the metrics of each class")
    fast = "use the algorithms of prediction, whose results differ from those of validation by rounding"
    parser.add_argument("--fast", action="store_true", help=fast)
    args = parser.parse_args()
    config = config_from_arguments(args, EVAL_MODE=True)
    require(config.model.resume, "--resume")
    require(config.data.data_path, "--data-path")
    runtime = start(config, build_task)  # device, ranks, precision, task, compile cache
    task, is_main = runtime.task, runtime.ranks.is_main
    task.check_reports(args.results, args.per_class)

    def warn(line: str) -> None:
        if is_main:
            print(line, file=sys.stderr)

    run = CheckpointRun(runtime, task.build_model(), warn)
    metrics = run.evaluate(args.fast)
    if is_main:
        print(f"{run.checkpoint}: {metrics}")
        evaluator: ReportingEvaluator = run.evaluation.evaluator
        for line in evaluator.per_class() if args.per_class else ():
            print(line)
        if args.results is not None:
            evaluator.write_results(args.results)
            print(f"wrote {args.results}")
    metrics.require_finite()


if __name__ == "__main__":
    run_command_line(main)
