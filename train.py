"""Train a model: python train.py --cfg configs/msg_tiny_p4_win7_224.yaml --data-path <imagenet>."""

from __future__ import annotations

from msg_ms.cli import config_from_arguments, profile_steps, require, run_command_line, train_parser
from msg_ms.engine.checkpoint_run import CheckpointRun
from msg_ms.engine.log import RunLog
from msg_ms.engine.runtime import start
from msg_ms.engine.stop import stopped_status
from msg_ms.engine.trainer import Trainer
from msg_ms.tasks import build_task


def main() -> int:
    """Train, or with --eval or --throughput evaluate a checkpoint; returns the exit status."""
    args = train_parser().parse_args()
    asked = config_from_arguments(args)
    profiled = profile_steps(args, asked)
    require(asked.data.data_path, "--data-path")
    runtime = start(asked, build_task)  # device, ranks, precision, task, compile cache
    config, task = runtime.config, runtime.task
    model = task.build_model()

    log = RunLog(config.run_dir, runtime.ranks.rank)
    log.info(f"device: {runtime.devices}; output: {config.run_dir} (full configuration in config.yaml)")
    log.info(task.describe(model))
    finished = True
    if config.eval_mode:
        run = CheckpointRun(runtime, model, log.info, log.progress_bar)
        log.info(f"{run.checkpoint}: {run.evaluate().require_finite()}")
    elif config.throughput_mode:
        log.info(CheckpointRun(runtime, model, log.info).measure_throughput())
    else:
        finished = Trainer(runtime, model, log, profile_steps=profiled).fit()
    log.close()
    return 0 if finished else stopped_status()


if __name__ == "__main__":
    run_command_line(main)
