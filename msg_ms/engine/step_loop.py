"""The steps of an epoch: launch, read the losses one step later, report, save and stop."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta

from mindspore import Parameter, nn
from mindspore.amp import LossScaler

from ..config import Config
from ..data.pipeline import Batch
from ..errors import UserError
from .callbacks import Callbacks
from .log import RunLog
from .meter import Meter
from .profiling import StepProfile
from .ranks import Ranks
from .run_state import Checkpoints
from .schedule import Schedule
from .stop import StopRequest
from .task import Task, TrainData
from .train_state import TrainState
from .train_step import AccumulatedStep, Figures, PendingFigures, TrainStep

REMEDY = "A lower TRAIN.BASE_LR, a longer warm-up or TRAIN.CLIP_GRAD usually helps"  # against diverging losses


class StepLoop:
    """The steps of a run between two evaluations; ``Trainer`` sets the attributes."""

    config: Config
    model: nn.Cell
    scaler: LossScaler | None
    task: Task
    ranks: Ranks
    log: RunLog
    data: TrainData
    step: TrainStep | AccumulatedStep
    schedule: Schedule
    checkpoints: Checkpoints
    callbacks: Callbacks
    stop: StopRequest
    profile: StepProfile
    statistics: Sequence[Parameter]  # that training changes without a gradient

    def run_steps(self, batches: Iterator[Batch], state: TrainState) -> TrainState:
        """Run the remaining steps of the epoch, or fewer if the run is asked to stop.

        The host launches a step before it reads the figures of the one before, so it waits for the device only where a
        line or a checkpoint needs them. All ranks read at the same steps, so they count the same losses and stop after
        the same step.
        """
        steps, config = self.data.steps, self.config
        first, end = state.step, (state.epoch + 1) * steps
        self.meter = meter = Meter()
        groups = (meter.next_batches(batches, state.accumulation) for _ in range(first, end))
        title = f"epoch {state.epoch + 1}/{config.train.epochs}"
        pending: deque[PendingFigures] = deque()
        self.ended: list[tuple[int, Figures]] = []
        last: Figures | None = None
        for step, (group, bar) in enumerate(self.log.progress_bar(groups, end - first, title), first):
            lr = self.schedule.at_step(step)
            pending.append(self.step.launch(group, lr, self.stop.requested))
            done = step + 1 - state.epoch * steps
            report = done % config.print_freq == 0 or done == steps
            save = bool(config.save_steps) and (step + 1) % config.save_steps == 0 and done < steps
            # The first step is read at once, so that the meter starts where its device time ends.
            if report or save or step == first or self.profile.ends_with(step):
                state, last = self._read(state, pending, last)
            else:
                state, last = self._read(state, pending, last, leave=1)
            meter.count_step()
            bar.set_postfix(
                loss=f"{last.losses[0]:.3f}",
                lr=f"{lr:.2e}",
                speed=f"{state.samples_per_step / meter.seconds:.0f}/s",
                data_wait=f"{meter.data_wait_fraction:.0%}",
                refresh=False,
            )
            if not report:
                self._end_steps()
            # A rank alone stops after this step. Several agree on it in the all-reduce of the gradients.
            stopping = last.stop_requests > 0 or (self.ranks.world_size == 1 and self.stop.requested)
            if stopping:
                self.stop.requested = True
                state, last = self._read(state, pending, last)
            figures = self._report(f"{title}, step {done}/{steps}", state, last.norm, lr, meter) if report else None
            self._end_steps(figures)
            if stopping or (self.ranks.world_size == 1 and self.stop.requested and not pending):
                break
            self.profile.end_step(step, meter)
            if save:
                self.save(state)
        return state

    def _end_steps(self, report: dict[str, float] | None = None) -> None:
        """Report the steps that have been read to the callbacks, and ``report``, the last step's figures in the log."""
        for step, figures in self.ended:
            last = step == self.ended[-1][0]
            self.callbacks.end_step(step, figures, self.schedule.at_step(step - 1), report if last else None)
        self.ended.clear()
        self.stop.requested |= self.callbacks.stop_requested

    def _read(
        self, state: TrainState, pending: deque[PendingFigures], last: Figures | None, leave: int = 0
    ) -> tuple[TrainState, Figures]:
        """Wait for all but the newest ``leave`` of the pending steps and count them.

        Returns:
            The state, and the figures of the last step that was counted, ``last`` if there is none.
        """
        while len(pending) > leave:
            last = self.meter.read(pending.popleft())
            state = self._count(state, last)
            self.ended.append((state.step, last))
        assert last is not None  # the first step is read at once
        return state, last

    def _count(self, state: TrainState, figures: Figures) -> TrainState:
        """Return the state after a step; raise UserError if the run can't continue."""
        step, loss, norm, scale = state.step, figures.losses[0], figures.norm, figures.scale
        state = replace(state, step=step + 1)
        if figures.finite:
            return state.add_losses(figures.losses)
        if self.scaler is None or math.isfinite(norm):
            self._abort(step, f"has loss {loss} and gradient norm {norm}", "")
        state = replace(state, skipped=state.skipped + 1, skipped_in_a_row=state.skipped_in_a_row + 1)
        self.log.info(
            f"step {step + 1} skipped: loss {loss}, gradient norm {norm}; loss scale now {scale:g}, "
            f"{state.skipped} skipped so far"
        )
        if state.skipped_in_a_row >= self.config.amp.max_skipped:
            reason = f"is the last of {state.skipped_in_a_row} skipped in a row (loss {loss}, loss scale {scale:g})"
            self._abort(step, reason, "Try AMP_OPT_LEVEL O0 to see whether half precision is the cause. ")
        return state

    def _report(self, title: str, state: TrainState, norm: float, lr: float, meter: Meter) -> dict[str, float]:
        """Log the figures of a step and return them."""
        speed = state.samples_per_step / meter.seconds
        remaining = self.config.train.epochs * self.data.steps - state.step
        eta = timedelta(seconds=int(remaining * meter.seconds))
        loss, *others = state.mean_losses or [math.nan] * (1 + len(self.task.loss_names))
        named = dict(zip(self.task.loss_names, others, strict=True))
        details = " (" + ", ".join(f"{name} {value:.4f}" for name, value in named.items()) + ")" if named else ""
        skipped = f"{state.skipped} skipped, " if state.skipped else ""
        self.log.info(
            f"{title}: loss {loss:.4f}{details}, grad norm {norm:.3f}, lr {lr:.3e}, {skipped}{speed:.1f} "
            f"{self.task.sample_name}/s, data wait {meter.data_wait_fraction:.0%}, ETA {eta}"
        )
        return {
            "gradient_norm": norm,
            "lr": lr,
            "running_loss": loss,
            "samples_per_second": speed,
            "data_wait": meter.data_wait_fraction,
            "skipped": state.skipped,
            **{f"running_loss/{name}": value for name, value in named.items()},
        }

    def save(self, state: TrainState) -> None:
        """Write a checkpoint to resume from."""
        self.average_statistics()
        self.checkpoints.save(state)

    def average_statistics(self) -> None:
        """Average the parameters that no gradient moves, such as a normalisation's statistics, over the ranks."""
        self.ranks.average_parameters(self.statistics)

    def _abort(self, step: int, reason: str, advice: str) -> None:
        """End the run without saving, since its weights may be spoilt, and list the files of the batch."""
        files = self.ranks.gather_text("".join(f"{file}\n" for file in self.data.files_of(step)))
        self.log.write("bad_batch.txt", files)
        raise UserError(
            f"step {step + 1} {reason}; {self.checkpoints.newest}, and the files of the batch are listed in "
            f"{self.log.run_dir / 'bad_batch.txt'}. {advice}{REMEDY}"
        )
