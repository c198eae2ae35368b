"""The one evaluation loop: every sample counts exactly once, on any number of ranks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mindspore import nn

from ..data.pipeline import Batch
from ..models.freeze import set_training
from .log import progress_bar
from .ranks import SINGLE_PROCESS, Ranks
from .runtime import Runtime
from .task import EvalData, Evaluator, Metrics
from .train_step import arguments, example

ShowProgress = Callable[[Iterable[Batch], int, str], Iterator[tuple[Batch, Any]]]


class Evaluation:
    """Evaluates one model on one data set, as often as asked.

    Args:
        model: The model.
        evaluator: Turns its outputs into metrics.
        data: This rank's batches.
        ranks: The ranks that share the evaluation.
        show_progress: Wraps the batches in a progress bar.
    """

    def __init__(
        self,
        model: nn.Cell,
        evaluator: Evaluator,
        data: EvalData,
        ranks: Ranks = SINGLE_PROCESS,
        show_progress: ShowProgress = progress_bar,
    ):
        self.model, self.evaluator, self.data, self.ranks = model, evaluator, data, ranks
        self.show_progress = show_progress

    def run(self, stop_requested: Callable[[], bool] = lambda: False) -> Metrics | None:
        """Evaluate the model with its present weights over all batches of all ranks.

        Args:
            stop_requested: Is called before each batch; if it returns True on any rank, evaluation ends early.

        Returns:
            The metrics; None if evaluation ended early.
        """
        self.evaluator.reset()
        stopped = False
        with self._eval_mode():
            for batch, _ in self.show_progress(self.data.batches(), self.data.steps, "evaluate"):
                stopped = stop_requested()
                if stopped:
                    break
                self.evaluator.update(batch, self.evaluator.network(*arguments(batch)))
        return None if self.ranks.any(stopped) else self.evaluator.compute(self.ranks)

    def compile_graphs(self) -> None:
        """Compile the network for the batches of the data, in the order of their signatures."""
        with self._eval_mode():
            for signature in self.data.signatures:
                self.evaluator.network.compile(*example(signature))

    @classmethod
    def of_run(
        cls, runtime: Runtime, model: nn.Cell, show_progress: ShowProgress = progress_bar, detailed: bool = False
    ) -> Evaluation:
        """Return the evaluation of a run's model on the evaluation data of its task, with or without details."""
        task = runtime.task
        evaluator = task.detailed_evaluator(model) if detailed else task.evaluator(model)
        return cls(model, evaluator, task.eval_data(runtime.shard, runtime.workers), runtime.ranks, show_progress)

    @contextlib.contextmanager
    def _eval_mode(self) -> Iterator[None]:
        was_training = self.model.training
        self.evaluator.network.set_train(False)
        try:
            yield
        finally:
            if was_training:
                set_training(self.model)
