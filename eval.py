"""Evaluate a checkpoint: python eval.py --cfg F --data-path D --resume X.ckpt."""

from __future__ import annotations

import sys

from msg_ms.cli import config_from_arguments, config_parser, path_argument, require, run_command_line
from msg_ms.engine.checkpoint_run import CheckpointRun
from msg_ms.engine.outputs import EvalOutputs
from msg_ms.engine.runtime import start
from msg_ms.tasks import build_task

RESULTS_HELP = """write the outputs for every image: detections as COCO's JSON, or the most probable classes as JSON or
CSV"""
REPORT_HELP = "write report.html with charts, errors and the worst images, and all numbers as JSON and CSV"


def main() -> None:
    """Print the checkpoint's metrics on the validation data, and write the outputs that are asked for."""
    parser = config_parser("Evaluate a checkpoint on the validation data.")
    parser.add_argument("--results", type=path_argument, metavar="FILE", help=RESULTS_HELP)
    parser.add_argument("--per-class", action="store_true", help="print the metrics of each class")
    fast = "use the algorithms of prediction, whose results differ from those of validation by rounding"
    parser.add_argument("--fast", action="store_true", help=fast)
    parser.add_argument("--report", type=path_argument, metavar="FOLDER", help=REPORT_HELP)
    args = parser.parse_args()
    config = config_from_arguments(args, EVAL_MODE=True)
    require(config.model.resume, "--resume")
    require(config.data.data_path, "--data-path")
    outputs = EvalOutputs(args.results, args.per_class, args.report)
    runtime = start(config, build_task)  # device, ranks, precision, task, compile cache
    task, is_main = runtime.task, runtime.ranks.is_main
    task.check_outputs(outputs)

    def warn(line: str) -> None:
        if is_main:
            print(line, file=sys.stderr)

    run = CheckpointRun(runtime, task.build_model(), warn)
    metrics = run.evaluate(args.fast, detailed=bool(outputs.flags))
    if is_main:
        print(f"{run.checkpoint}: {metrics}")
    metrics.require_finite()
    if is_main:
        for line in run.write_outputs(outputs, metrics):
            print(line)


if __name__ == "__main__":
    run_command_line(main)
