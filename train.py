"""Train an MSG-Transformer: python train.py --cfg configs/msg_tiny_p4_win7_224.yaml --data-path <imagenet>."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from datetime import timedelta
from itertools import islice
from pathlib import Path

import mindspore as ms
import numpy as np

from msg_ms.cli import config_from_arguments, config_parser, require, run_command_line
from msg_ms.config import Config, to_yaml
from msg_ms.data import EvalDataset, TrainDataset, check_classes, scan_folder
from msg_ms.engine.checkpoint import Checkpoints, Progress
from msg_ms.engine.device import clamp_workers, setup_device
from msg_ms.engine.evaluate import EvalStep, Evaluation, evaluate
from msg_ms.engine.log import RunLog
from msg_ms.engine.loss import SmoothedCrossEntropy
from msg_ms.engine.optim import build_optimizer
from msg_ms.engine.schedule import Schedule, build_schedule
from msg_ms.engine.throughput import measure_throughput
from msg_ms.engine.train_step import TrainStep
from msg_ms.errors import UserError
from msg_ms.models.build import build_model
from msg_ms.support import check_supported, describe_unused


def main() -> None:
    config = config_from_arguments(parse_arguments())
    check_supported(config)
    data_path = Path(require(config.data.data_path, "--data-path"))
    train_folder = None if config.eval_mode or config.throughput_mode else scan_folder(data_path / "train")
    val_folder = scan_folder(data_path / "val")
    check_classes(train_folder, val_folder, config.model.num_classes)

    target = setup_device(config.device_target, config.seed)
    log = RunLog(config.run_dir)
    (config.run_dir / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    log.info(f"device {target}, results in {config.run_dir}, configuration in {config.run_dir / 'config.yaml'}")
    for line in describe_unused(config):
        log.info(line)

    workers = clamp_workers(config.data.num_workers)
    val_data = EvalDataset(val_folder, config.data, config.test.crop, workers)
    model = build_model(config.model, config.data.img_size)
    log.info(
        f"{config.model.name}: {sum(p.size for p in model.trainable_params()):,} parameters, "
        f"{model.flops() / 1e9:.2f} GFLOPs at {config.data.img_size} pixels"
    )
    eval_step = EvalStep(model, config.model.num_classes)

    def validate() -> Evaluation:
        watched = log.progress(val_data.batches(), val_data.steps, "evaluate")
        return evaluate(eval_step, (batch for batch, _ in watched), config.data.batch_size)

    if config.eval_mode or config.throughput_mode:
        source = Checkpoints(config.run_dir, model).restore_weights(config.model.resume)
        if config.throughput_mode:
            images, _ = next(val_data.batches())
            log.info(measure_throughput(model, images))
        else:
            log.info(f"{source}: {validate()}")
        return

    train_data = TrainDataset(train_folder, config.data, config.aug, config.seed, workers)
    steps = train_data.steps
    optimizer = build_optimizer(config.train, model.trainable_params())
    step = TrainStep(model, SmoothedCrossEntropy(config.model.label_smoothing), optimizer, config.train.clip_grad)
    schedule = build_schedule(config.train, steps, config.data.batch_size)
    checkpoints = Checkpoints(config.run_dir, model, optimizer)
    progress = checkpoints.restore(config.model.resume, config.train.auto_resume, log)
    if progress.epoch >= config.train.epochs:
        log.info(f"all {config.train.epochs} epochs are done; best top-1 {progress.best_accuracy:.2f}%")
        return
    if progress.step != progress.epoch * steps:
        raise UserError(
            f"the checkpoint made {progress.step} updates in {progress.epoch} epochs, but these images in batches "
            f"of {config.data.batch_size} make {steps} an epoch; go on with the data and batch size it was made with"
        )

    batches = train_data.batches(progress.step, config.train.epochs)
    log.info(f"{len(train_folder)} training images, {steps} updates an epoch, {len(val_folder)} for evaluation")
    begin = time.time()
    for epoch in range(progress.epoch, config.train.epochs):
        loss = train_one_epoch(epoch, config, batches, step, schedule, steps, log)
        result = validate()
        best = max(progress.best_accuracy, result.top1)
        improved = result.top1 > progress.best_accuracy or progress.epoch == 0
        progress = Progress(epoch + 1, (epoch + 1) * steps, result.top1, best)
        log.info(f"epoch {epoch + 1}/{config.train.epochs}: {result}; best top-1 {best:.2f}%")
        log.metrics(
            epoch=epoch + 1, step=progress.step, train_loss=loss, rate=schedule.at_update(progress.step - 1),
            loss=result.loss, top1=result.top1, top5=result.top5,
        )  # fmt: skip
        last = progress.epoch % config.save_freq == 0 or progress.epoch == config.train.epochs
        checkpoints.save(progress, improved, last)
    log.info(f"trained in {timedelta(seconds=int(time.time() - begin))}; best top-1 {progress.best_accuracy:.2f}% in {checkpoints.best}")


def train_one_epoch(
    epoch: int, config: Config, batches: Iterator, step: TrainStep, schedule: Schedule, steps: int, log: RunLog
) -> float:
    """One pass over the training images; gives the mean loss of the images seen."""
    losses, begin = [], time.time()
    for i, ((images, labels), bar) in enumerate(log.progress(islice(batches, steps), steps, f"epoch {epoch + 1}/{config.train.epochs}")):
        rate = schedule.at_update(epoch * steps + i)
        loss, norm = step(ms.Tensor(images), ms.Tensor(labels), ms.Tensor(rate, ms.float32))
        losses.append(float(loss.asnumpy()))
        bar.set_postfix(loss=f"{losses[-1]:.3f}", rate=f"{rate:.2e}", refresh=False)
        if (i + 1) % config.print_freq == 0 or i + 1 == steps:
            speed = len(losses) * len(labels) / (time.time() - begin)
            left = (config.train.epochs * steps - epoch * steps - i - 1) * len(labels) / speed
            log.info(
                f"epoch {epoch + 1}/{config.train.epochs}, update {i + 1}/{steps}: loss {np.mean(losses):.4f}, rate {rate:.3e}, "
                f"gradient norm {float(norm.asnumpy()):.3f}, {speed:.1f} images/s, {timedelta(seconds=int(left))} to go"
            )
    return float(np.mean(losses))


def parse_arguments() -> argparse.Namespace:
    parser = config_parser("Train an MSG-Transformer, evaluating after each epoch.")
    parser.add_argument("--accumulation-steps", type=int, help="micro-steps per update")
    parser.add_argument("--amp-opt-level", choices=["O0", "O1", "O2"], help="mixed precision (default: O0)")
    parser.add_argument("--eval", action="store_true", help="evaluate --resume and end")
    parser.add_argument("--throughput", action="store_true", help="measure inference speed on one batch and end")
    return parser.parse_args()


if __name__ == "__main__":
    run_command_line(main)
