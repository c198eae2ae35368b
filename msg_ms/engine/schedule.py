"""Learning-rate schedules as pure functions of the update, with the values of the paper's code (timm 0.3.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..config import TrainConfig

IMAGES_PER_UPDATE = 512  # the number of images that BASE_LR, WARMUP_LR and MIN_LR are meant for
LINEAR_FLOOR = 0.01  # the paper code's linear schedule ends at this part of the base rate


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up from ``warmup`` to ``base``, then cosine, linear or stepwise decay; rates per update."""

    kind: str
    base: float
    warmup: float
    minimum: float
    total_steps: int
    warmup_steps: int
    decay_steps: int
    decay_rate: float

    def value(self, t: int) -> float:
        """The schedule at time ``t``, counted in updates from 0; after warm-up the decay is at ``t``, not behind it."""
        if t < self.warmup_steps:
            return self.warmup + t * (self.base - self.warmup) / self.warmup_steps
        if self.kind == "cosine":
            if t >= self.total_steps:
                return self.minimum
            return self.minimum + 0.5 * (self.base - self.minimum) * (1 + math.cos(math.pi * t / self.total_steps))
        if self.kind == "linear":
            done = (t - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
            return self.base - self.base * (1 - LINEAR_FLOOR) * done
        return self.base * self.decay_rate ** (t // self.decay_steps)

    def at_update(self, k: int) -> float:
        """The rate of update ``k``, from 0. It lags by one: the paper's code sets the rate after each update."""
        return self.value(max(k - 1, 0))


def build_schedule(config: TrainConfig, steps_per_epoch: int, images_per_update: int) -> Schedule:
    """The schedule of a whole run; the configured rates are scaled linearly to ``images_per_update``."""
    scale = images_per_update / IMAGES_PER_UPDATE
    return Schedule(
        kind=config.lr_scheduler.name,
        base=config.base_lr * scale,
        warmup=config.warmup_lr * scale,
        minimum=config.min_lr * scale,
        total_steps=config.epochs * steps_per_epoch,
        warmup_steps=config.warmup_epochs * steps_per_epoch,
        decay_steps=config.lr_scheduler.decay_epochs * steps_per_epoch,
        decay_rate=config.lr_scheduler.decay_rate,
    )
