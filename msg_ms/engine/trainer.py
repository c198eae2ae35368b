"""The training loop of any task: steps, checkpoints, evaluation after each epoch, resuming."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from mindspore import Parameter, nn
from mindspore.train import Callback

from ..checkpoint import EMA_PREFIX, OPTIMIZER_PREFIX, SCALER_PREFIX, parameters_by_name
from ..config import schedule_warnings, to_yaml
from ..errors import UserError
from ..models.freeze import freeze, moving_statistics
from ..models.layer_decay import lr_scales
from .callbacks import Callbacks, TensorBoard, checked_callbacks
from .ema import WeightEMA
from .evaluate import Evaluation
from .log import RunLog
from .loss_scale import build_scaler, scaler_state
from .optim import build_optimizer
from .profiling import StepProfile
from .ranks import GradientSum
from .run_state import Checkpoints
from .runtime import Runtime
from .schedule import build_schedule
from .step_loop import REMEDY, StepLoop
from .stop import StopRequest, end_at_once
from .task import Metrics
from .train_state import TrainState
from .train_step import LossAndGradients, OptimizerStep, build_step


class Trainer(StepLoop):
    """Trains a task's model.

    Args:
        runtime: Configuration, task and ranks.
        model: The task's model.
        log: The log of the run.
        callbacks: Are called at the events of the run, before the one that writes to TensorBoard.
        ends_at_once: Whether a signal ends the process while graphs are compiled; a notebook must survive it.
        profile_steps: Number of steps to profile, after the first one.
    """

    def __init__(
        self,
        runtime: Runtime,
        model: nn.Cell,
        log: RunLog,
        callbacks: Sequence[Callback] = (),
        ends_at_once: bool = True,
        profile_steps: int = 0,
    ):
        self.runtime, self.model, self.log, self.ends_at_once = runtime, model, log, ends_at_once
        board = [TensorBoard(log.run_dir)] if runtime.ranks.is_main else []
        self.user_callbacks = [*checked_callbacks(callbacks), *board]
        self.config, self.task, self.ranks = runtime.config, runtime.task, runtime.ranks
        self.profile = StepProfile(profile_steps, runtime.target, runtime.ranks.rank, log)
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
        start = self._start_state()
        state = self.checkpoints.restore(start) or start
        log.write("config.yaml", to_yaml(config))
        log.begin_metrics(state.step, state.epoch)
        if state.epoch >= epochs or self._stops_early(state):
            reason = f"all {epochs} epochs are" if state.epoch >= epochs else "the run is"
            log.info(f"{reason} finished; {self._best(state)}, weights in {self.checkpoints.best}")
            return True
        self.profile.plan(state.step, data.steps - state.step % data.steps)
        samples = f"{len(data):,} training {self.task.sample_name}"
        log.info(f"{samples}, {data.steps} steps per epoch; compiling")
        self._compile()
        self.schedule = build_schedule(config.train, data.steps, state.samples_per_step)
        started = time.time()
        self.callbacks.begin(state)
        try:
            state = self._run_epochs(state)
        finally:
            self.profile.close()
            self.callbacks.call("on_train_end")
        self.ranks.any(False)  # no process ends before rank 0 has written: a cluster might then kill the job
        self._report_end(state, timedelta(seconds=int(time.time() - started)))
        return state.epoch >= epochs or self._stops_early(state)

    def _build(self) -> None:
        """Build optimizer, loss scaler, EMA, the step and the checkpoints."""
        settings, ranks, world_size = self.config.train, self.ranks, self.ranks.world_size
        frozen = self._freeze()
        trained = self.model.trainable_params()
        scales = lr_scales(self.model, trained, settings.layer_decay)
        optimizer = build_optimizer(settings, trained, self.task.has_weight_decay, scales)
        self.scaler = scaler = build_scaler(self.config.amp_opt_level, self.config.amp)
        self.ema = ema = WeightEMA(optimizer.targets, settings.ema_decay, frozen) if settings.ema_decay > 0 else None
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
        self.callbacks = Callbacks(
            self.user_callbacks,
            batch_num=self.data.steps,
            epoch_num=self.config.train.epochs,
            network=self.model,
            train_network=self.model,
            optimizer=optimizer,
            train_dataset=self.data,
            device_number=world_size,
        )
        task = self.task
        self.checkpoints = Checkpoints(self.config, state, self.log, ranks, task.metadata(), task.check_resume)

    def _freeze(self) -> list[Parameter]:
        """Freeze the parts that ``TRAIN.FREEZE`` names, and return their parameters."""
        frozen = freeze(self.model, self.config.train.freeze)
        self.statistics = moving_statistics(self.model, frozen)
        if frozen:
            count, trained = (sum(p.size for p in part) for part in (frozen, self.model.trainable_params()))
            self.log.info(f"frozen: {count:,} parameters; {trained:,} are trained")
        return frozen

    def _start_state(self) -> TrainState:
        """Return the state of a new run."""
        config, data = self.config, self.data
        first = config.train.start_epoch
        return TrainState(
            epoch=first,
            step=first * data.steps,
            epoch_steps=data.steps,
            batch_size=data.order.batch_size,
            accumulation=data.order.accumulation,
            world_size=self.ranks.world_size,
            seed=config.seed,
            samples=len(data),
        )

    def _compile(self) -> None:
        """Compile all graphs, through the compile cache if there is one; a signal may end the process meanwhile."""
        train, evaluation, cache = self.data.signatures, self.evaluation, self.runtime.cache
        graphs = f"train {train} evaluate {evaluation.data.signatures}"
        signals = end_at_once() if self.ends_at_once else contextlib.nullcontext()
        with signals, cache.use(graphs) if cache is not None else contextlib.nullcontext():
            self.step.compile_graphs(train)
            evaluation.compile_graphs()

    def _run_epochs(self, state: TrainState) -> TrainState:
        epochs, save_freq = self.config.train.epochs, self.config.save_freq
        # One iterator over all epochs, so that none waits for its workers to start.
        batches = self.data.batches(state.step, epochs, self.log.info)
        with StopRequest() as self.stop:
            stopping = False
            while state.epoch < epochs and not stopping:
                self.callbacks.begin_epoch(state)
                state = self.run_steps(batches, state)
                stopping = self.ranks.any(self.stop.requested)
                due = False
                if state.step == (state.epoch + 1) * self.data.steps:
                    due = (state.epoch + 1) % save_freq == 0 or state.epoch + 1 == epochs
                    if due and not stopping:
                        # Evaluation may fail or be killed: a run that resumes from here evaluates first.
                        self.save(state)
                    state = state if stopping else self._finish_epoch(state)
                    stopping = self.ranks.any(self.stop.requested) or self._stops_early(state)
                if due or stopping:
                    self.save(state)
        return state

    def _stops_early(self, state: TrainState) -> bool:
        """Return whether ``TRAIN.EARLY_STOPPING`` epochs have not improved the primary metric."""
        patience = self.config.train.early_stopping
        return patience > 0 and state.epoch - state.best_epoch >= patience

    def _finish_epoch(self, state: TrainState) -> TrainState:
        """Evaluate the weights, and their EMA if there is one; keep the better ones as the best.

        If the run is asked to stop meanwhile, the epoch stays unfinished, and a run that resumes evaluates it.
        """
        unfinished = state
        losses: Sequence[float | None] = state.mean_losses or [None] * (1 + len(self.task.loss_names))
        lr = self.schedule.at_step(state.step - 1)
        state = replace(state, epoch=state.epoch + 1, loss_sums=(), counted=0)
        title, values = f"epoch {state.epoch}/{self.config.train.epochs}", {}
        self.average_statistics()
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
        record = dict(
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
        self.log.metrics(**record)
        self.callbacks.end_epoch({**metrics.values, **values}, record)
        self.stop.requested |= self.callbacks.stop_requested
        if self._stops_early(state):
            patience, epochs = self.config.train.early_stopping, self.config.train.epochs
            self.log.info(f"no better {self.task.metrics[0].title} for {patience} of {epochs} epochs: the run ends")
        return state

    def _stop_requested(self) -> bool:
        return self.stop.requested

    def _keep_best(self, state: TrainState, metrics: Metrics) -> TrainState:
        """Save the model's present weights as the best, if they are; without any score the last ones are."""
        best = (state.best_score, state.best_tie_breaker)
        if metrics.rank <= best and state.has_score and self.checkpoints.best.exists():
            return state
        score, tie_breaker = max(metrics.rank, best)
        best_epoch = state.epoch if score > state.best_score else state.best_epoch
        state = replace(state, best_score=score, best_tie_breaker=tie_breaker, best_epoch=best_epoch)
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
        if state.epoch < self.config.train.epochs and not self._stops_early(state):
            newest = self.checkpoints.newest
            self.log.info(f"stopped at step {state.step}; {newest}; rerun the same command to resume")
        else:
            weights = self.checkpoints.best
            self.log.info(f"training finished in {duration}; {self._best(state)}, weights in {weights}")
