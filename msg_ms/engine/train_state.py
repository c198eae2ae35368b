"""How far a run is, as its checkpoints store it."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

from ..checkpoint import Metadata
from ..errors import UserError

# Names in checkpoints of earlier versions.
ALIASES = {"world_size": "world", "score": "accuracy", "best_score": "best_accuracy"}


@dataclass(frozen=True)
class TrainState:
    """How far a run is.

    Attributes:
        epoch: Finished epochs.
        step: Optimizer steps so far.
        epoch_steps: Steps per epoch.
        batch_size: Samples per batch. This, the next three and the seed decide which samples a step sees.
        accumulation: Batches per step and rank.
        world_size: Number of ranks.
        seed: Seed of the run.
        samples: Samples in the data set; 0 in checkpoints of earlier versions.
        score: Primary metric after the last epoch, signed so that larger is better; minus infinity if undefined.
        best_score: The best of these.
        best_tie_breaker: The tie-breaking metric of the best epoch, signed likewise.
        best_epoch: The finished epochs when the best score was reached.
        loss_sums: Sums of the total loss and the named losses over ``counted`` steps since the last finished epoch.
        counted: Steps with finite loss and gradients since the last finished epoch.
        skipped: Steps skipped because of gradients that were not finite.
        skipped_in_a_row: The last of them without a step in between.
    """

    epoch: int = 0
    step: int = 0
    epoch_steps: int = 0
    batch_size: int = 0
    accumulation: int = 1
    world_size: int = 1
    seed: int = 0
    samples: int = 0
    score: float = -math.inf
    best_score: float = -math.inf
    best_tie_breaker: float = -math.inf
    best_epoch: int = 0
    loss_sums: tuple[float, ...] = ()
    counted: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0

    @property
    def has_score(self) -> bool:
        """Whether any epoch had a primary metric, which may be undefined."""
        return self.best_score > -math.inf

    @property
    def samples_per_step(self) -> int:
        """Samples per step on all ranks."""
        return self.batch_size * self.accumulation * self.world_size

    @property
    def mean_losses(self) -> list[float]:
        """The total loss and the named losses, averaged since the last finished epoch."""
        return [total / max(1, self.counted) for total in self.loss_sums]

    def add_losses(self, losses: list[float]) -> TrainState:
        """Return the state after a step with these losses."""
        sums = self.loss_sums or (0.0,) * len(losses)
        sums = tuple(total + loss for total, loss in zip(sums, losses, strict=True))
        return dataclasses.replace(self, loss_sums=sums, counted=self.counted + 1, skipped_in_a_row=0)

    def to_metadata(self) -> Metadata:
        """Return the fields as metadata of a checkpoint."""
        return {**dataclasses.asdict(self), "loss_sums": json.dumps(self.loss_sums)}

    @classmethod
    def from_metadata(cls, metadata: Metadata) -> TrainState:
        """Return the state in a checkpoint's metadata, which an earlier version may have written."""
        values: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            name = field.name if field.name in metadata else ALIASES.get(field.name, field.name)
            values[field.name] = metadata.get(name, field.default)
        sums = values["loss_sums"]
        values["loss_sums"] = tuple(json.loads(sums)) if isinstance(sums, str) else sums
        if "best_epoch" not in metadata:  # early stopping begins to count now
            values["best_epoch"] = values["epoch"]
        if "loss_sum" in metadata:
            values["loss_sums"] = (metadata["loss_sum"],)
        return cls(**values)

    def resume_into(self, start: TrainState) -> tuple[TrainState, list[str]]:
        """Continue from this state in a run that would begin as ``start``.

        Returns:
            The state with the new run's split of the batches, and a line for each difference.

        Raises:
            UserError: If the new run would not see the same samples at the same steps.
        """
        theirs = (self.epoch_steps, self.samples_per_step, self.seed)
        ours = (start.epoch_steps, start.samples_per_step, start.seed)
        if theirs != ours:
            raise UserError(
                f"the checkpoint's run made {theirs[0]} steps per epoch of {self.batch_split} with seed {theirs[2]}; "
                f"this run would make {ours[0]} of {start.batch_split} with seed {ours[2]}: resume with the same "
                "data, batch size and seed, or start a new run from its weights (--pretrained and another --tag)"
            )
        if self.samples not in (0, start.samples):
            raise UserError(
                f"the checkpoint's run had {self.samples} training samples, and there are {start.samples} now: resume "
                "with the same data, or start a new run from its weights (--pretrained and another --tag)"
            )
        lines = []
        if self.batch_split != start.batch_split:
            lines.append(
                f"the {self.samples_per_step} samples of a step were {self.batch_split} and are now "
                f"{start.batch_split}: the samples stay the same, but per-batch randomness is drawn again"
            )
        split = {name: getattr(start, name) for name in ("batch_size", "accumulation", "world_size", "samples")}
        return dataclasses.replace(self, **split), lines

    @property
    def batch_split(self) -> str:
        """How the samples of a step are divided, in words."""
        devices = "device" if self.world_size == 1 else "devices"
        batches = f"{self.accumulation} batches" if self.accumulation > 1 else "1 batch"
        return f"{batches} of {self.batch_size} on {self.world_size} {devices}"
