"""The updates of one epoch: what is fed to the step, what a person sees of it, and when it ends early."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import islice

from mindspore.amp import LossScaler

from ..config import Config
from ..data import TrainDataset
from ..data.classification import Batch
from ..errors import UserError
from .log import RunLog
from .ranks import Ranks
from .run_state import Checkpoints, Progress
from .schedule import Schedule
from .stop import StopRequest
from .train_step import AccumulatedStep, TrainStep, drop_path_noise


class Meter:
    """Time per update and the part of it spent waiting for data, without the first update, which compiles."""

    def __init__(self) -> None:
        self.updates, self.begin, self.waited = -1, time.perf_counter(), 0.0

    def waiting(self, batches: Iterator[Batch], count: int) -> list[Batch]:
        """The next ``count`` batches; the time that they take is noted."""
        begin = time.perf_counter()
        group = list(islice(batches, count))
        self.waited += time.perf_counter() - begin
        return group

    def update(self) -> None:
        self.updates += 1
        if self.updates == 0:
            self.begin, self.waited = time.perf_counter(), 0.0

    @property
    def seconds(self) -> float:
        """Of one update."""
        return (time.perf_counter() - self.begin) / max(1, self.updates)

    @property
    def data_part(self) -> float:
        """The part of the time that was spent waiting for data, between 0 and 1."""
        return self.waited / max(1e-9, time.perf_counter() - self.begin)


@dataclass(frozen=True)
class EpochRunner:
    """Runs epochs; ``blocks`` is the model's depth. Without a ``scaler`` a loss that is no number ends the run."""

    step: TrainStep | AccumulatedStep
    schedule: Schedule
    data: TrainDataset
    log: RunLog
    stop: StopRequest
    checkpoints: Checkpoints
    config: Config
    blocks: int
    scaler: LossScaler | None
    ranks: Ranks

    def run(self, batches: Iterator[Batch], progress: Progress) -> Progress:
        """The updates that are left of the epoch, or fewer where the run is to stop; gives where it stands then."""
        steps, epochs, save_steps = self.data.steps, self.config.train.epochs, self.config.save_steps
        first, end = progress.step, (progress.epoch + 1) * steps
        meter = Meter()
        groups = (meter.waiting(batches, progress.accumulation) for _ in range(first, end))
        title = f"epoch {progress.epoch + 1}/{epochs}"
        for group, bar in self.log.progress(groups, end - first, title):
            rate = self.schedule.at_update(progress.step)
            loss, norm = self.step.run(self._with_draws(group, progress), rate)
            meter.update()
            # All ranks must count the same loss, and end after the same update.
            told = self.ranks.sum([loss, self.stop.requested])
            loss, stopping = told[0] / self.ranks.world, told[1] > 0
            progress = self._count(progress, loss, norm)
            bar.set_postfix(
                loss=f"{loss:.3f}", rate=f"{rate:.2e}", images=f"{progress.images_per_update / meter.seconds:.0f}/s",
                data=f"{meter.data_part:.0%}", refresh=False,
            )  # fmt: skip
            done = progress.step - progress.epoch * steps
            if done % self.config.print_freq == 0 or done == steps:
                self._report(f"{title}, update {done}/{steps}", progress, norm, rate, meter)
            if stopping:
                self.stop.requested = True
                break
            if save_steps and progress.step % save_steps == 0 and done < steps:
                self.checkpoints.save(progress)
        return progress

    def _with_draws(self, group: list[Batch], progress: Progress) -> list[tuple]:
        """The batches with what stochastic depth goes by."""
        first, shard = progress.step * progress.accumulation, self.data.order.shard
        return [
            (*batch, drop_path_noise(self.blocks, progress.batch_size, self.config.seed, first + i, shard.rank))
            for i, batch in enumerate(group)
        ]

    def _count(self, progress: Progress, loss: float, norm: float) -> Progress:
        """The progress after an update that gave these; UserError where the run can't go on."""
        update = progress.step
        progress = replace(progress, step=update + 1)
        if math.isfinite(loss) and math.isfinite(norm):
            added = replace(progress, loss_sum=progress.loss_sum + loss, counted=progress.counted + 1)
            return replace(added, skipped_in_a_row=0)
        if self.scaler is None or math.isfinite(norm):
            self._refuse(update, f"gave loss {loss} and gradient norm {norm}", "")
        progress = replace(progress, skipped=progress.skipped + 1, skipped_in_a_row=progress.skipped_in_a_row + 1)
        scale = float(self.scaler.scale_value.asnumpy())
        self.log.info(
            f"update {update + 1} skipped: loss {loss}, gradient norm {norm}; loss scale now {scale:g}, "
            f"{progress.skipped} skipped so far"
        )
        if progress.skipped_in_a_row >= self.config.amp.max_skipped:
            many = (
                f"is the last of {progress.skipped_in_a_row} skipped one after the other (loss {loss}, scale {scale:g})"
            )
            self._refuse(update, many, "AMP_OPT_LEVEL O0 tells whether half precision is to blame. ")
        return progress

    def _report(self, title: str, progress: Progress, norm: float, rate: float, meter: Meter) -> None:
        speed = progress.images_per_update / meter.seconds
        left = timedelta(seconds=int((self.config.train.epochs * self.data.steps - progress.step) * meter.seconds))
        loss = progress.loss_sum / max(1, progress.counted)
        skipped = f"{progress.skipped} skipped, " if progress.skipped else ""
        self.log.info(
            f"{title}: loss {loss:.4f}, gradient norm {norm:.3f}, rate {rate:.3e}, {skipped}{speed:.1f} images/s, "
            f"{meter.data_part:.0%} of the time waiting for data, {left} to go"
        )
        self.log.watch(
            progress.step, gradient_norm=norm, rate=rate, running_loss=loss, images_per_second=speed,
            data_wait=meter.data_part, skipped=progress.skipped,
        )  # fmt: skip

    def _refuse(self, update: int, what: str, advice: str) -> None:
        """End the run: its weights may be spoilt, so nothing is saved; the batch's files are written down."""
        files = self.ranks.gather_text("".join(f"{file}\n" for file in self.data.files_of(update)))
        self.log.write("bad_batch.txt", files)
        raise UserError(
            f"update {update + 1} {what}; {self.checkpoints.newest}, and the batch's files are listed in "
            f"{self.log.run_dir / 'bad_batch.txt'}. {advice}A lower TRAIN.BASE_LR, a longer warm-up or TRAIN.CLIP_GRAD "
            "helps most often"
        )
