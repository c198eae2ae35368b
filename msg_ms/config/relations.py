"""Conditions on several values of the configuration together: refused, or worth a warning."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from ..errors import UserError
from .schema import Config, TrainConfig


def check_together(config: Config) -> None:
    """Raise UserError for values that are valid by themselves but not together."""
    problems = (_data_problems(config), _detection_problems(config), _model_problems(config), _train_problems(config))
    for problem in itertools.chain(*problems):
        raise UserError(problem)


def _data_problems(config: Config) -> Iterator[str]:
    size, bounds = config.data.img_size, config.aug.cutmix_minmax
    if bounds is not None and int(size * bounds[0]) >= int(size * bounds[1]):
        yield (
            f"AUG.CUTMIX_MINMAX={list(bounds)}: both are {int(size * bounds[0])} pixels of DATA.IMG_SIZE={size}; "
            "the second must be larger"
        )
    if config.aug.crop_ratio[1] / config.aug.crop_ratio[0] > 1e6:
        yield f"AUG.CROP_RATIO={list(config.aug.crop_ratio)}: the second must be less than a million times the first"


def _detection_problems(config: Config) -> Iterator[str]:
    detection = config.detection
    for short, long, names in (
        (max(detection.short_sides), detection.long_side, "SHORT_SIDES and LONG_SIDE"),
        (detection.test_short_side, detection.test_long_side, "TEST_SHORT_SIDE and TEST_LONG_SIDE"),
    ):
        for height, width in ((min(short, long), long), (long, min(short, long))):
            if not any(height <= h and width <= w for h, w in detection.canvases):
                yield (
                    f"DETECTION.CANVASES={[list(canvas) for canvas in detection.canvases]}: none holds an image of "
                    f"height {height} and width {width}, as DETECTION.{names} allow; add "
                    f"[{-(-height // 32) * 32}, {-(-width // 32) * 32}]"
                )


def _model_problems(config: Config) -> Iterator[str]:
    msg = config.model.msg
    if int(msg.embed_dim * msg.mlp_ratio) < 1:
        yield f"MODEL.MSG.MLP_RATIO={msg.mlp_ratio}: no channel is left of MODEL.MSG.EMBED_DIM={msg.embed_dim}"


def _train_problems(config: Config) -> Iterator[str]:
    train = config.train
    if config.training and train.start_epoch >= train.epochs:
        yield f"TRAIN.START_EPOCH={train.start_epoch}: must be below TRAIN.EPOCHS={train.epochs}, or nothing is trained"
    if train.lr_scheduler.name == "multistep" and not train.lr_scheduler.milestones:
        yield (
            "TRAIN.LR_SCHEDULER.NAME=multistep needs TRAIN.LR_SCHEDULER.MILESTONES, the epochs after which it decays, "
            "such as [27, 33]"
        )


def schedule_warnings(train: TrainConfig, steps_per_epoch: int) -> Iterator[str]:
    """Yield a line for each part of the schedule that the run never reaches, or that goes the wrong way.

    Args:
        train: The section ``TRAIN``.
        steps_per_epoch: Optimizer steps per epoch.
    """
    epochs, decay = train.epochs, train.lr_scheduler
    total, warmup = epochs * steps_per_epoch, train.warmup_steps or train.warmup_epochs * steps_per_epoch
    if warmup >= total:
        key = f"WARMUP_STEPS={warmup}" if train.warmup_steps else f"WARMUP_EPOCHS={train.warmup_epochs}"
        end = f"the {total} steps of the run" if train.warmup_steps else f"TRAIN.EPOCHS={epochs}"
        yield f"warning: TRAIN.{key} is not below {end}: TRAIN.BASE_LR={train.base_lr:g} is never reached"
    if train.warmup_lr > train.base_lr and warmup:
        yield f"warning: TRAIN.WARMUP_LR={train.warmup_lr:g} is above TRAIN.BASE_LR={train.base_lr:g}"
    if decay.name == "cosine" and train.min_lr > train.base_lr:
        yield f"warning: TRAIN.MIN_LR={train.min_lr:g} is above TRAIN.BASE_LR={train.base_lr:g}: the cosine rises"
    late = [epoch for epoch in decay.milestones if epoch >= epochs] if decay.name == "multistep" else []
    if late:
        yield f"warning: TRAIN.LR_SCHEDULER.MILESTONES={late} are not below TRAIN.EPOCHS={epochs}: they are not reached"
    if decay.name == "step" and decay.decay_epochs >= epochs:
        yield (
            f"warning: TRAIN.LR_SCHEDULER.DECAY_EPOCHS={decay.decay_epochs} is not below TRAIN.EPOCHS={epochs}: "
            "the learning rate never decays"
        )
