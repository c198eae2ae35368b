"""The updates of one epoch: what is fed to the step, what a person sees of it, and when it ends early."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import islice
from pathlib import Path

import numpy as np

from ..data import TrainDataset
from ..errors import UserError
from .checkpoint import Progress
from .log import RunLog
from .schedule import Schedule
from .stop import StopRequest
from .train_step import AccumulatedStep, TrainStep, drop_path_draws


@dataclass(frozen=True)
class EpochRunner:
    """Runs epochs of ``epochs``; ``blocks`` is the model's depth, ``last`` the checkpoint to name in an error."""

    step: TrainStep | AccumulatedStep
    schedule: Schedule
    data: TrainDataset
    log: RunLog
    stop: StopRequest
    last: Path
    epochs: int
    blocks: int
    seed: int
    print_freq: int

    def run(self, batches: Iterator, progress: Progress) -> Progress:
        """The updates that are left of the epoch, or fewer where the run is to stop; gives where it stands then."""
        steps, count, size = self.data.steps, self.data.order.accumulation, self.data.order.batch_size
        first, end, loss_sum = progress.step, (progress.epoch + 1) * steps, progress.loss_sum
        title, begin = f"epoch {progress.epoch + 1}/{self.epochs}", time.time()
        groups = (list(islice(batches, count)) for _ in range(first, end))
        for k, (group, bar) in enumerate(self.log.progress(groups, end - first, title), first):
            rate = self.schedule.at_update(k)
            draws = [drop_path_draws(self.blocks, size, self.seed, k * count + i) for i in range(count)]
            loss, norm = self.step.run([(*batch, draw) for batch, draw in zip(group, draws, strict=True)], rate)
            if not np.isfinite([loss, norm]).all():
                self._refuse(k, loss, norm)
            loss_sum += loss
            bar.set_postfix(loss=f"{loss:.3f}", rate=f"{rate:.2e}", refresh=False)
            done = k + 1 - progress.epoch * steps
            if done % self.print_freq == 0 or done == steps:
                speed = (k + 1 - first) / (time.time() - begin)
                left = timedelta(seconds=int((self.epochs * steps - k - 1) / speed))
                self.log.info(
                    f"{title}, update {done}/{steps}: loss {loss_sum / done:.4f}, gradient norm {norm:.3f}, "
                    f"rate {rate:.3e}, {speed * size * count:.1f} images/s, {left} to go"
                )
            if self.stop.requested:
                break
        return replace(progress, step=k + 1, loss_sum=loss_sum)

    def _refuse(self, update: int, loss: float, norm: float) -> None:
        """End the run: its weights are spoilt, so nothing is saved; the batch's files go to ``bad_batch.txt``."""
        self.log.write("bad_batch.txt", "".join(f"{file}\n" for file in self.data.files_of(update)))
        good = f"the last good checkpoint is {self.last}" if self.last.exists() else "there is no checkpoint yet"
        raise UserError(
            f"update {update + 1} gave loss {loss} and gradient norm {norm}; {good}, and the batch's files are listed "
            f"in {self.log.run_dir / 'bad_batch.txt'}. A lower TRAIN.BASE_LR, a longer warm-up or TRAIN.CLIP_GRAD "
            "helps most often"
        )
