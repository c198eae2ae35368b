"""Train an MSG-Transformer: python train.py --cfg configs/msg_tiny_p4_win7_224.yaml --data-path <imagenet>."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from msg_ms import MSGTransformer
from msg_ms.checkpoint import (
    EMA_PREFIX,
    OPTIMIZER_PREFIX,
    SCALER_PREFIX,
    load_for_inference,
    load_pretrained,
    parameters_by_name,
)
from msg_ms.cli import config_from_arguments, require, run_command_line, train_parser
from msg_ms.config import Config, to_yaml
from msg_ms.data import EvalDataset, Shard, TrainDataset, load_folders
from msg_ms.engine import compile_cache
from msg_ms.engine.device import check_half_precision, check_same_job, clamp_workers, setup_device
from msg_ms.engine.ema import WeightEMA
from msg_ms.engine.epoch import EpochRunner
from msg_ms.engine.evaluate import EvalStep, Evaluation, evaluate
from msg_ms.engine.log import RunLog
from msg_ms.engine.loss_scale import build_scaler, scaler_state
from msg_ms.engine.optim import build_optimizer
from msg_ms.engine.ranks import GradientSum, Ranks
from msg_ms.engine.run_state import Checkpoints, Progress
from msg_ms.engine.schedule import build_schedule
from msg_ms.engine.stop import StopRequest
from msg_ms.engine.throughput import measure_throughput
from msg_ms.engine.train_step import LossAndGradients, Update, build_step
from msg_ms.errors import UserError
from msg_ms.models.build import build_model
from msg_ms.models.losses import SmoothedCrossEntropy
from msg_ms.models.precision import set_precision
from msg_ms.support import check_supported


def main() -> None:
    config = config_from_arguments(train_parser().parse_args())
    check_supported(config)
    training = not (config.eval_mode or config.throughput_mode)
    require(config.data.data_path, "--data-path")
    target, ranks = setup_device(config.device_target, config.seed, config.jit_level)
    check_half_precision(config.amp_level, config.amp.dtype)
    train_folder, val_folder = load_folders(config.data, config.model.num_classes, training)
    check_same_job(ranks, config, (train_folder or val_folder).files)
    compile_cache.enable(config, ranks)

    shard, workers = Shard(ranks.rank, ranks.world), clamp_workers(config.data.num_workers)
    val_data = EvalDataset(val_folder, config.data, config.test.crop, workers, shard)
    model = build_model(config.model, config.data.img_size)
    set_precision(model, config.amp_level, config.amp.dtype)
    eval_step = EvalStep(model, config.model.num_classes)

    log = RunLog(config.run_dir, ranks.rank)
    devices = f"{ranks.world} x {target}" if ranks.world > 1 else target
    log.info(f"device {devices}, results in {config.run_dir}, the whole configuration in config.yaml there")
    log.info(
        f"{config.model.name}: {sum(p.size for p in model.trainable_params()):,} parameters, "
        f"{model.flops() / 1e9:.2f} GFLOPs at {config.data.img_size} pixels, precision {config.amp_level}"
    )

    def validate() -> Evaluation:
        watched = log.progress(val_data.batches(), val_data.steps, "evaluate")
        return evaluate(eval_step, (batch for batch, _ in watched), config.data.batch_size, ranks)

    if training:
        num_classes, smoothing = config.model.num_classes, config.model.label_smoothing
        accumulation = config.train.accumulation_steps
        data = TrainDataset(
            train_folder, config.data, config.aug, num_classes, smoothing, config.seed, workers, shard, accumulation
        )  # fmt: skip
        for line in (*train_folder.warnings, *val_folder.warnings):
            log.info(line)
        train(config, model, data, validate, log, ranks, target)
        log.close()
        return
    source = Path(config.model.resume or config.run_dir / "best.ckpt")
    for line in load_for_inference(model, source)[0]:
        log.info(line)
    if config.throughput_mode:
        log.info(measure_throughput(model, next(val_data.batches())[0]))
    else:
        log.info(f"{source}: {validate()}")


def train(
    config: Config,
    model: MSGTransformer,
    data: TrainDataset,
    validate: Callable[[], Evaluation],
    log: RunLog,
    ranks: Ranks,
    target: str,
) -> None:
    """Train from where the run stands to ``TRAIN.EPOCHS``, evaluating after each epoch."""
    settings, epochs, order = config.train, config.train.epochs, data.order
    if config.model.pretrained:
        for line in load_pretrained(model, Path(config.model.pretrained)):
            log.info(f"{config.model.pretrained}: {line}")
    if settings.use_checkpoint:
        model.recompute_blocks()
    optimizer = build_optimizer(settings, model.trainable_params())
    scaler = build_scaler(config.amp_level, config.amp)
    average = WeightEMA(optimizer.targets, settings.ema_decay) if settings.ema_decay > 0 else None
    gradient_sum = GradientSum(optimizer.targets, target) if ranks.world > 1 else None
    step = build_step(
        LossAndGradients(model, SmoothedCrossEntropy(config.model.label_smoothing), optimizer.targets, scaler),
        Update(optimizer, settings.clip_grad, scaler, average, ranks.world, gradient_sum),
        order.accumulation,
    )

    state = {
        "": parameters_by_name(model.get_parameters()),
        OPTIMIZER_PREFIX: optimizer.state(),
        SCALER_PREFIX: scaler_state(scaler),
    }
    if average is not None:
        state[EMA_PREFIX] = average.state()
    checkpoints = Checkpoints(config, state, log, ranks, data.folder.classes)
    begin = Progress(
        settings.start_epoch, settings.start_epoch * data.steps, data.steps, order.batch_size, order.accumulation,
        ranks.world, config.seed,
    )  # fmt: skip
    progress = checkpoints.restore(begin) or begin
    log.write("config.yaml", to_yaml(config))
    log.begin_metrics(progress.step)
    if progress.epoch >= epochs:
        log.info(f"all {epochs} epochs are done; best top-1 {progress.best_accuracy:.2f}% in {checkpoints.best}")
        return

    log.info(f"{len(data.folder)} images to train on, {data.steps} updates an epoch; the first compiles the graph")
    schedule, started = build_schedule(settings, data.steps, progress.images_per_update), time.time()
    # One run over all epochs, so that none waits for its workers to start.
    batches = data.batches(progress.step, epochs, log.info)
    with StopRequest() as stop:
        blocks = sum(config.model.msg.depths)
        runner = EpochRunner(step, schedule, data, log, stop, checkpoints, config, blocks, scaler, ranks)
        stopping = False
        while progress.epoch < epochs and not stopping:
            progress = runner.run(batches, progress)
            due = False
            if progress.step == (progress.epoch + 1) * data.steps:
                rate = schedule.at_update(progress.step - 1)
                progress = finish_epoch(progress, rate, validate, average, checkpoints, log)
                due = progress.epoch % config.save_freq == 0 or progress.epoch == epochs
            stopping = ranks.any(stop.requested)
            if due or stopping:
                checkpoints.save(progress)
    report_end(progress, epochs, timedelta(seconds=int(time.time() - started)), checkpoints, log)


def report_end(progress: Progress, epochs: int, spent: timedelta, checkpoints: Checkpoints, log: RunLog) -> None:
    """The run's last line; UserError where its last checkpoint is missing."""
    if checkpoints.failure:
        raise UserError(f"ended after update {progress.step} without its last checkpoint: {checkpoints.failure}")
    if progress.epoch < epochs:
        log.info(f"stopped after update {progress.step}, {checkpoints.newest}; the same command goes on")
    else:
        log.info(f"trained in {spent}; best top-1 {progress.best_accuracy:.2f}% in {checkpoints.best}")


def finish_epoch(
    progress: Progress,
    rate: float,
    validate: Callable[[], Evaluation],
    average: WeightEMA | None,
    checkpoints: Checkpoints,
    log: RunLog,
) -> Progress:
    """Evaluate the weights, and their average where there is one; keep the better as the best so far."""
    epoch, epochs = progress.epoch + 1, checkpoints.config.train.epochs
    result, extra, loss = validate(), {}, progress.loss_sum / max(1, progress.counted)
    progress = replace(progress, epoch=epoch, accuracy=result.top1, loss_sum=0.0, counted=0)
    progress = keep_best(progress, result, checkpoints)
    log.info(f"epoch {epoch}/{epochs}: {result}; best top-1 {progress.best_accuracy:.2f}%")
    if average is not None:
        with average.swapped_in():
            averaged = validate()
            progress = keep_best(progress, averaged, checkpoints)
        log.info(f"epoch {epoch}/{epochs}, averaged weights: {averaged}; best top-1 {progress.best_accuracy:.2f}%")
        extra = dict(ema_loss=averaged.loss, ema_top1=averaged.top1, ema_top5=averaged.top5)
    log.metrics(
        epoch=epoch, step=progress.step, train_loss=loss, rate=rate, loss=result.loss, top1=result.top1,
        top5=result.top5, skipped=progress.skipped, **extra,
    )  # fmt: skip
    return progress


def keep_best(progress: Progress, result: Evaluation, checkpoints: Checkpoints) -> Progress:
    """Save the model's weights of now as the best where they are."""
    if result.top1 <= progress.best_accuracy and checkpoints.best.exists():
        return progress
    progress = replace(progress, best_accuracy=max(result.top1, progress.best_accuracy))
    checkpoints.save_best(progress)
    return progress


if __name__ == "__main__":
    run_command_line(main)
