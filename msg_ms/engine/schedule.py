"""Learning-rate schedules as pure functions of the step, with the values of the paper's code (timm 0.3.2)."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass

from ..config import TrainConfig

LINEAR_FLOOR = 0.01  # the paper code's linear schedule ends at this fraction of the base learning rate


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then cosine, linear, step or multistep decay.

    Attributes:
        kind: "cosine", "linear", "step" or "multistep".
        base_lr: Learning rate after warm-up.
        warmup_lr: Learning rate of step 0.
        min_lr: Learning rate at the end of the cosine.
        total_steps: Steps of the whole run.
        warmup_steps: Steps of the warm-up.
        decay_steps: Steps between two decays ("step").
        decay_rate: Factor of a decay ("step", "multistep").
        milestones: Steps at which "multistep" decays.
    """

    kind: str
    base_lr: float
    warmup_lr: float
    min_lr: float
    total_steps: int
    warmup_steps: int
    decay_steps: int
    decay_rate: float
    milestones: tuple[int, ...] = ()

    def value(self, t: int) -> float:
        """Return the schedule's value at time ``t`` in steps; the decay counts from the start of the run."""
        if t < self.warmup_steps:
            return self.warmup_lr + t * (self.base_lr - self.warmup_lr) / self.warmup_steps
        if self.kind == "cosine":
            if t >= self.total_steps:
                return self.min_lr
            return self.min_lr + 0.5 * (self.base_lr - self.min_lr) * (1 + math.cos(math.pi * t / self.total_steps))
        if self.kind == "linear":
            done = (t - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
            return self.base_lr - self.base_lr * (1 - LINEAR_FLOOR) * done
        decays = bisect_right(self.milestones, t) if self.kind == "multistep" else t // self.decay_steps
        return self.base_lr * self.decay_rate**decays

    def at_step(self, k: int) -> float:
        """Return the learning rate of step ``k``, from 0. It lags by one: the paper's code sets it after each step."""
        return self.value(max(k - 1, 0))


def build_schedule(config: TrainConfig, steps_per_epoch: int, samples_per_step: int) -> Schedule:
    """Return the schedule of a whole run.

    Args:
        config: The section ``TRAIN``.
        steps_per_epoch: Optimizer steps per epoch.
        samples_per_step: Samples per step on all ranks; the learning rates scale linearly with them.
    """
    scale, decay = samples_per_step / config.base_batch_size, config.lr_scheduler
    return Schedule(
        kind=decay.name,
        base_lr=config.base_lr * scale,
        warmup_lr=config.warmup_lr * scale,
        min_lr=config.min_lr * scale,
        total_steps=config.epochs * steps_per_epoch,
        warmup_steps=config.warmup_steps or config.warmup_epochs * steps_per_epoch,
        decay_steps=decay.decay_epochs * steps_per_epoch,
        decay_rate=decay.decay_rate,
        milestones=tuple(epoch * steps_per_epoch for epoch in decay.milestones),
    )
