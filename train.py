"""Train an MSG-Transformer: python train.py --cfg configs/msg_tiny_p4_win7_224.yaml --data-path <imagenet>."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from msg_ms import MSGTransformer
from msg_ms.cli import config_from_arguments, config_parser, require, run_command_line
from msg_ms.config import Config, to_yaml
from msg_ms.data import EvalDataset, TrainDataset, load_folders
from msg_ms.engine.checkpoint import Checkpoints, Progress
from msg_ms.engine.device import clamp_workers, setup_device
from msg_ms.engine.epoch import EpochRunner
from msg_ms.engine.evaluate import EvalStep, Evaluation, evaluate
from msg_ms.engine.log import RunLog
from msg_ms.engine.loss import SmoothedCrossEntropy
from msg_ms.engine.optim import build_optimizer
from msg_ms.engine.schedule import build_schedule
from msg_ms.engine.stop import StopRequest
from msg_ms.engine.throughput import measure_throughput
from msg_ms.engine.train_step import build_step
from msg_ms.models.build import build_model
from msg_ms.support import check_supported


def main() -> None:
    config = config_from_arguments(parse_arguments())
    check_supported(config)
    training = not (config.eval_mode or config.throughput_mode)
    require(config.data.data_path, "--data-path")
    train_folder, val_folder = load_folders(config.data, config.model.num_classes, training)

    target = setup_device(config.device_target, config.seed)
    workers = clamp_workers(config.data.num_workers)
    val_data = EvalDataset(val_folder, config.data, config.test.crop, workers)
    model = build_model(config.model, config.data.img_size)
    eval_step = EvalStep(model, config.model.num_classes)

    log = RunLog(config.run_dir)
    log.write("config.yaml", to_yaml(config))
    log.info(f"device {target}, results in {config.run_dir}, the whole configuration in config.yaml there")
    log.info(
        f"{config.model.name}: {sum(p.size for p in model.trainable_params()):,} parameters, "
        f"{model.flops() / 1e9:.2f} GFLOPs at {config.data.img_size} pixels"
    )

    def validate() -> Evaluation:
        watched = log.progress(val_data.batches(), val_data.steps, "evaluate")
        return evaluate(eval_step, (batch for batch, _ in watched), config.data.batch_size)

    if training:
        num_classes, smoothing = config.model.num_classes, config.model.label_smoothing
        data = TrainDataset(
            train_folder,
            config.data,
            config.aug,
            num_classes,
            smoothing,
            config.seed,
            workers,
            accumulation=config.train.accumulation_steps,
        )
        for line in (*train_folder.warnings, *val_folder.warnings):
            log.info(line)
        train(config, model, data, validate, log)
        return
    source = Checkpoints(config.run_dir, model).restore_weights(config.model.resume)
    if config.throughput_mode:
        log.info(measure_throughput(model, next(val_data.batches())[0]))
    else:
        log.info(f"{source}: {validate()}")


def train(
    config: Config, model: MSGTransformer, data: TrainDataset, validate: Callable[[], Evaluation], log: RunLog
) -> None:
    """Train from where the run stands to ``TRAIN.EPOCHS``, evaluating and saving after each epoch."""
    epochs, steps = config.train.epochs, data.steps
    optimizer = build_optimizer(config.train, model.trainable_params())
    loss = SmoothedCrossEntropy(config.model.label_smoothing)
    step = build_step(model, loss, optimizer, config.train.clip_grad, config.train.accumulation_steps)
    size = config.data.batch_size * data.order.accumulation  # images per update
    schedule = build_schedule(config.train, steps, size)
    checkpoints = Checkpoints(config.run_dir, model, optimizer)

    start = Progress(config.train.start_epoch, config.train.start_epoch * steps, steps, size)
    progress = checkpoints.restore(config.model.resume, config.train.auto_resume, log) or start
    progress.check(steps, size)
    if progress.epoch >= epochs:
        log.info(f"all {epochs} epochs are done; best top-1 {progress.best_accuracy:.2f}% in {checkpoints.best}")
        return

    log.info(f"{len(data.folder)} images to train on, {steps} updates an epoch; the first compiles the graph")
    begin = time.time()
    # One run over all epochs, so that none waits for its workers to start.
    batches = data.batches(progress.step, epochs, log.info)
    with StopRequest() as stop:
        blocks, last = sum(config.model.msg.depths), checkpoints.last
        runner = EpochRunner(step, schedule, data, log, stop, last, epochs, blocks, config.seed, config.print_freq)
        for epoch in range(progress.epoch, epochs):
            progress = runner.run(batches, progress)
            if progress.step == (epoch + 1) * steps:
                result = validate()
                improved = result.top1 > progress.best_accuracy or not checkpoints.best.exists()
                best, loss = max(result.top1, progress.best_accuracy), progress.loss_sum / steps
                progress = replace(progress, epoch=epoch + 1, accuracy=result.top1, best_accuracy=best, loss_sum=0.0)
                log.info(f"epoch {progress.epoch}/{epochs}: {result}; best top-1 {best:.2f}%")
                log.metrics(
                    epoch=progress.epoch,
                    step=progress.step,
                    train_loss=loss,
                    rate=schedule.at_update(progress.step - 1),
                    loss=result.loss,
                    top1=result.top1,
                    top5=result.top5,
                )
                due = progress.epoch % config.save_freq == 0 or progress.epoch == epochs
                checkpoints.save(progress, improved, last=due or stop.requested)
            elif stop.requested:
                checkpoints.save(progress, improved=False, last=True)
            if stop.requested and progress.epoch < epochs:
                log.info(f"stopped after update {progress.step}, saved in {checkpoints.last}; the same command goes on")
                return
    spent = timedelta(seconds=int(time.time() - begin))
    log.info(f"trained in {spent}; best top-1 {progress.best_accuracy:.2f}% in {checkpoints.best}")


def parse_arguments() -> argparse.Namespace:
    parser = config_parser("Train an MSG-Transformer, evaluating after each epoch.")
    parser.add_argument("--accumulation-steps", type=int, help="micro-steps per update")
    parser.add_argument("--amp-opt-level", choices=["O0", "O1", "O2"], help="mixed precision (default: O0)")
    parser.add_argument("--eval", action="store_true", help="evaluate --resume and end")
    parser.add_argument("--throughput", action="store_true", help="measure inference speed on one batch and end")
    return parser.parse_args()


if __name__ == "__main__":
    run_command_line(main)
