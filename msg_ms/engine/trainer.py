"""The training loop of any task: steps, checkpoints, evaluation after each epoch, resuming."""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from mindspore import nn

from ..checkpoint import EMA_PREFIX, OPTIMIZER_PREFIX, SCALER_PREFIX, parameters_by_name
from ..config import schedule_warnings, to_yaml
from ..data.pipeline import Batch
from ..errors import UserError
from .ema import WeightEMA
from .evaluate import Evaluation
from .log import RunLog
from .loss_scale import build_scaler, scaler_state
from .meter import Meter
from .optim import build_optimizer
from .ranks import GradientSum
from .run_state import Checkpoints
from .runtime import Runtime
from .schedule import build_schedule
from .stop import StopRequest, end_at_once
from .task import Metrics
from .train_state import TrainState
from .train_step import Figures, LossAndGradients, OptimizerStep, PendingFigures, build_step

REMEDY = "A lower TRAIN.BASE_LR, a longer warm-up or TRAIN.CLIP_GRAD usually helps"  # against diverging losses


class Trainer:
    """Trains a task's model.

    Args:
        runtime: Configuration, task and ranks.
        model: The task's model.
        log: The log of the run.
    """

    def __init__(self, runtime: Runtime, model: nn.Cell, log: RunLog):
        self.runtime, self.model, self.log = runtime, model, log
        self.config, self.task, self.ranks = runtime.config, runtime.task, runtime.ranks
        self.evaluation = Evaluation.of_run(runtime, model, log.progress_bar)

    def fit(self) -> bool:
        """Train until ``TRAIN.EPOCHS``, from the newest checkpoint of the run if there is one.

        Returns:
            Whether all epochs are finished; False if a signal stopped the run.

        Raises:
            UserError: If a loss is not finite, the ranks disagree, or the last checkpoint could not be written.
        """
        config, log, epochs = self.config, self.log, self.config.train.epochs
        self.ranks.run_on_rank0(log.lock)
        self.data = data = self.task.train_data(self.runtime.shard, self.runtime.workers)
        for line in (*schedule_warnings(config.train, data.steps), *self.task.warnings()):
            log.info(line)
        if config.model.pretrained:
            for line in self.task.load_pretrained(self.model, Path(config.model.pretrained)):
                log.info(f"{config.model.pretrained}: {line}")
        self._build()
        first = config.train.start_epoch
        start = TrainState(
            epoch=first,
            step=first * data.steps,
            epoch_steps=data.steps,
            batch_size=data.order.batch_size,
            accumulation=data.order.accumulation,
            world_size=self.ranks.world_size,
            seed=config.seed,
            samples=len(data),
        )
        state = self.checkpoints.restore(start) or start
        log.write("config.yaml", to_yaml(config))
        log.begin_metrics(state.step, state.epoch)
        if state.epoch >= epochs:
            log.info(f"all {epochs} epochs are finished; {self._best(state)}, weights in {self.checkpoints.best}")
            return True
        samples = f"{len(data):,} training {self.task.sample_name}"
        log.info(f"{samples}, {data.steps} steps per epoch; compiling")
        self._compile()
        self.schedule = build_schedule(config.train, data.steps, state.samples_per_step)
        started = time.time()
        state = self._run_epochs(state)
        self.ranks.any(False)  # no process ends before rank 0 has written: a cluster might then kill the job
        self._report_end(state, timedelta(seconds=int(time.time() - started)))
        return state.epoch >= epochs

    def _build(self) -> None:
        """Build optimizer, loss scaler, EMA, the step and the checkpoints."""
        settings, ranks, world_size = self.config.train, self.ranks, self.ranks.world_size
        optimizer = build_optimizer(settings, self.model.trainable_params(), self.task.has_weight_decay)
        self.scaler = scaler = build_scaler(self.config.amp_opt_level, self.config.amp)
        self.ema = ema = WeightEMA(optimizer.targets, settings.ema_decay) if settings.ema_decay > 0 else None
        gradient_sum = GradientSum(optimizer.targets, self.runtime.target) if world_size > 1 else None
        self.step = build_step(
            LossAndGradients(self.task.loss_cell(self.model), optimizer.targets, scaler),
            OptimizerStep(optimizer, settings.clip_grad, scaler, ema, world_size, gradient_sum),
            self.data.order.accumulation,
            1 + len(self.task.loss_names),
        )
        state = {
            "": parameters_by_name(self.model.get_parameters()),
            OPTIMIZER_PREFIX: optimizer.state(),
            SCALER_PREFIX: scaler_state(scaler),
        }
        if ema is not None:
            state[EMA_PREFIX] = ema.state()
        task = self.task
        self.checkpoints = Checkpoints(self.config, state, self.log, ranks, task.metadata(), task.check_resume)

    def _compile(self) -> None:
        """Compile all graphs, through the compile cache if there is one; a signal may end the process meanwhile."""
        train, evaluation, cache = self.data.signatures, self.evaluation, self.runtime.cache
        graphs = f"train {train} evaluate {evaluation.data.signatures}"
        with end_at_once(), cache.use(graphs) if cache is not None else contextlib.nullcontext():
            self.step.compile_graphs(train)
            evaluation.compile_graphs()

    def _run_epochs(self, state: TrainState) -> TrainState:
        epochs, save_freq = self.config.train.epochs, self.config.save_freq
        # One iterator over all epochs, so that none waits for its workers to start.
        batches = self.data.batches(state.step, epochs, self.log.info)
        with StopRequest() as self.stop:
            stopping = False
            while state.epoch < epochs and not stopping:
                state = self._run_steps(batches, state)
                stopping = self.ranks.any(self.stop.requested)
                due = False
                if state.step == (state.epoch + 1) * self.data.steps:
                    due = (state.epoch + 1) % save_freq == 0 or state.epoch + 1 == epochs
                    if due and not stopping:
                        # Evaluation may fail or be killed: a run that resumes from here evaluates first.
                        self._save(state)
                    state = state if stopping else self._finish_epoch(state)
                    stopping = self.ranks.any(self.stop.requested)
                if due or stopping:
                    self._save(state)
        return state

    def _run_steps(self, batches: Iterator[Batch], state: TrainState) -> TrainState:
        """Run the remaining steps of the epoch, or fewer if the run is asked to stop.

        The host launches a step before it reads the figures of the one before, so it waits for the device only where a
        line or a checkpoint needs them. All ranks read at the same steps, so they count the same losses and stop after
        the same step.
        """
        steps, config = self.data.steps, self.config
        first, end = state.step, (state.epoch + 1) * steps
        meter = Meter()
        groups = (meter.next_batches(batches, state.accumulation) for _ in range(first, end))
        title = f"epoch {state.epoch + 1}/{config.train.epochs}"
        pending: deque[PendingFigures] = deque()
        last: Figures | None = None
        for step, (group, bar) in enumerate(self.log.progress_bar(groups, end - first, title), first):
            lr = self.schedule.at_step(step)
            pending.append(self.step.launch(group, lr, self.stop.requested))
            done = step + 1 - state.epoch * steps
            report = done % config.print_freq == 0 or done == steps
            save = bool(config.save_steps) and (step + 1) % config.save_steps == 0 and done < steps
            # The first step is read at once, so that the meter starts where its device time ends.
            if report or save or step == first:
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
            # A rank alone stops after this step. Several agree on it in the all-reduce of the gradients.
            stopping = last.stop_requests > 0 or (self.ranks.world_size == 1 and self.stop.requested)
            if stopping:
                self.stop.requested = True
                state, last = self._read(state, pending, last)
            if report:
                self._report(f"{title}, step {done}/{steps}", state, last.norm, lr, meter)
            if stopping:
                break
            if save:
                self._save(state)
        return state

    def _read(
        self, state: TrainState, pending: deque[PendingFigures], last: Figures | None, leave: int = 0
    ) -> tuple[TrainState, Figures | None]:
        """Wait for all but the newest ``leave`` of the pending steps and count them.

        Returns:
            The state, and the figures of the last step that was counted, ``last`` if there is none.
        """
        while len(pending) > leave:
            last = pending.popleft().read()
            state = self._count(state, last)
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

    def _save(self, state: TrainState) -> None:
        self._average_statistics()
        self.checkpoints.save(state)

    def _average_statistics(self) -> None:
        """Average the parameters that no gradient moves, such as a normalisation's statistics, over the ranks."""
        self.ranks.average_parameters(p for p in self.model.get_parameters() if not p.requires_grad)

    def _report(self, title: str, state: TrainState, norm: float, lr: float, meter: Meter) -> None:
        speed = state.samples_per_step / meter.seconds
        remaining = self.config.train.epochs * self.data.steps - state.step
        eta = timedelta(seconds=int(remaining * meter.seconds))
        loss, *named = state.mean_losses or [math.nan] * (1 + len(self.task.loss_names))
        named = dict(zip(self.task.loss_names, named, strict=True))
        details = " (" + ", ".join(f"{name} {value:.4f}" for name, value in named.items()) + ")" if named else ""
        skipped = f"{state.skipped} skipped, " if state.skipped else ""
        self.log.info(
            f"{title}: loss {loss:.4f}{details}, grad norm {norm:.3f}, lr {lr:.3e}, {skipped}{speed:.1f} "
            f"{self.task.sample_name}/s, data wait {meter.data_wait_fraction:.0%}, ETA {eta}"
        )
        self.log.watch(
            state.step,
            gradient_norm=norm,
            lr=lr,
            running_loss=loss,
            samples_per_second=speed,
            data_wait=meter.data_wait_fraction,
            skipped=state.skipped,
            **{f"running_loss/{name}": value for name, value in named.items()},
        )

    def _abort(self, step: int, reason: str, advice: str) -> None:
        """End the run without saving, since its weights may be spoilt, and list the files of the batch."""
        files = self.ranks.gather_text("".join(f"{file}\n" for file in self.data.files_of(step)))
        self.log.write("bad_batch.txt", files)
        raise UserError(
            f"step {step + 1} {reason}; {self.checkpoints.newest}, and the files of the batch are listed in "
            f"{self.log.run_dir / 'bad_batch.txt'}. {advice}{REMEDY}"
        )

    def _finish_epoch(self, state: TrainState) -> TrainState:
        """Evaluate the weights, and their EMA if there is one; keep the better ones as the best.

        If the run is asked to stop meanwhile, the epoch stays unfinished, and a run that resumes evaluates it.
        """
        unfinished, losses = state, state.mean_losses or [None] * (1 + len(self.task.loss_names))
        lr = self.schedule.at_step(state.step - 1)
        state = replace(state, epoch=state.epoch + 1, loss_sums=(), counted=0)
        title, values = f"epoch {state.epoch}/{self.config.train.epochs}", {}
        self._average_statistics()
        metrics = self.evaluation.run(self._stop_requested)
        if metrics is None:
            return unfinished
        if any(math.isnan(value) for value in metrics.rank):
            raise UserError(
                f"{title}: model outputs are not finite (NaN): {metrics}. The weights of the newest checkpoint are "
                f"damaged; start again from an earlier one with --resume. {REMEDY}"
            )
        state = self._keep_best(replace(state, score=metrics.rank[0]), metrics)
        self.log.info(f"{title}: {metrics}; {self._best(state)}")
        if self.ema is not None:
            with self.ema.swapped_in():
                averaged = self.evaluation.run(self._stop_requested)
                if averaged is None:
                    return unfinished
                if averaged.is_defined:
                    state = self._keep_best(state, averaged)
            self.log.info(f"{title}, EMA weights: {averaged}; {self._best(state)}")
            values = {f"ema_{key}": value for key, value in averaged.values.items()}
        named = zip(self.task.loss_names, losses[1:], strict=True)
        self.log.metrics(
            epoch=state.epoch,
            step=state.step,
            primary=self.task.metrics[0].key,
            train_loss=losses[0],
            **{f"train_loss/{name}": value for name, value in named},
            lr=lr,
            **metrics.values,
            skipped=state.skipped,
            **values,
        )
        return state

    def _stop_requested(self) -> bool:
        return self.stop.requested

    def _keep_best(self, state: TrainState, metrics: Metrics) -> TrainState:
        """Save the model's present weights as the best, if they are; without any score the last ones are."""
        best = (state.best_score, state.best_tie_breaker)
        if metrics.rank <= best and state.has_score and self.checkpoints.best.exists():
            return state
        score, tie_breaker = max(metrics.rank, best)
        state = replace(state, best_score=score, best_tie_breaker=tie_breaker)
        self.checkpoints.save_best(state)
        return state

    def _best(self, state: TrainState) -> str:
        """Return the best primary metric so far, in words."""
        metric = self.task.metrics[0]
        if not state.has_score:
            return f"{metric.title} undefined, so the last weights are kept"
        return f"best {metric.text(state.best_score if metric.higher_is_better else -state.best_score)}"

    def _report_end(self, state: TrainState, duration: timedelta) -> None:
        if self.checkpoints.failure:
            raise UserError(f"ended after step {state.step} without its last checkpoint: {self.checkpoints.failure}")
        if state.epoch < self.config.train.epochs:
            newest = self.checkpoints.newest
            self.log.info(f"stopped at step {state.step}; {newest}; rerun the same command to resume")
        else:
            weights = self.checkpoints.best
            self.log.info(f"training finished in {duration}; {self._best(state)}, weights in {weights}")
