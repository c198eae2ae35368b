"""A run without training: the metrics of a checkpoint, or the model's speed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mindspore import nn

from ..checkpoint import load_for_inference
from ..report import PAGE, write_report
from .evaluate import Evaluation, ShowProgress
from .log import progress_bar
from .outputs import EvalOutputs
from .runtime import Runtime
from .task import Metrics
from .throughput import measure_throughput


class CheckpointRun:
    """Evaluates a checkpoint, or measures the speed of its model.

    Args:
        runtime: Configuration, task and ranks.
        model: The task's model.
        log: Is called with a line on each difference between the checkpoint and the model or its data.
        show_progress: Wraps the batches in a progress bar.

    Attributes:
        checkpoint: ``MODEL.RESUME``, or the run's best checkpoint.
        evaluation: The evaluation, after ``evaluate``.
    """

    evaluation: Evaluation

    def __init__(
        self,
        runtime: Runtime,
        model: nn.Cell,
        log: Callable[[str], None],
        show_progress: ShowProgress = progress_bar,
    ):
        self.runtime, self.model, self.log, self.show_progress = runtime, model, log, show_progress
        self.config, self.task = runtime.config, runtime.task
        self.checkpoint = Path(self.config.model.resume or self.config.run_dir / "best.ckpt")

    def evaluate(self, fast: bool = False, detailed: bool = False) -> Metrics:
        """Return the metrics of the checkpoint, which may not be finite.

        In single precision they have the same bits as those of validation during training.

        Args:
            fast: Use the algorithms of prediction instead, whose results differ by rounding.
            detailed: Whether ``write_outputs`` follows.
        """
        self._load_checkpoint()
        self.task.optimize_for_inference(self.model, strassen=fast)
        self.evaluation = Evaluation.of_run(self.runtime, self.model, self.show_progress, detailed)
        cache = self.runtime.cache
        if cache is not None:
            details = " with details" if detailed else ""
            with cache.use(f"evaluate{details} {self.evaluation.data.signatures}"):
                self.evaluation.compile_graphs()
        metrics = self.evaluation.run()
        assert metrics is not None  # nothing stops it
        return metrics

    def write_outputs(self, outputs: EvalOutputs, metrics: Metrics) -> Iterator[str]:
        """Write the outputs of ``evaluate(detailed=True)``, on rank 0.

        Args:
            outputs: The outputs, which ``Task.check_outputs`` has allowed.
            metrics: The result of ``evaluate``.

        Yields:
            Lines for the terminal.
        """
        evaluator: Any = self.evaluation.evaluator
        if outputs.per_class:
            yield from evaluator.per_class()
        if outputs.results is not None:
            evaluator.write_results(outputs.results)
            yield f"wrote {outputs.results}"
        if outputs.report is not None:
            facts = ("model", self.config.model.name), ("checkpoint", str(self.checkpoint))
            data = ("data", self.config.data.data_path), ("precision", self.config.amp_opt_level)
            write_report(outputs.report, self.task.report(evaluator, metrics), (*facts, *data))
            yield f"wrote {outputs.report / PAGE}"

    def measure_throughput(self) -> str:
        """Return a line with the inference speed on the first evaluation batch, with random weights if need be."""
        if self.config.model.resume or self.checkpoint.exists():
            self._load_checkpoint()
        else:
            self.log("no checkpoint: the speed is that of a model with random weights")
        batch = next(self.task.eval_data(self.runtime.shard, self.runtime.workers).batches())
        self.task.optimize_for_inference(self.model, strassen=True)
        line = measure_throughput(self.model, self.task.inference_inputs(batch), self.task.sample_name)
        half = self.config.inference_precision if self.config.inference_precision != "float32" else ""
        return f"{line}, precision {half or self.config.amp_opt_level}"

    def _load_checkpoint(self) -> None:
        lines, metadata = load_for_inference(self.model, self.checkpoint)
        for line in (*lines, *self.task.check_inference(self.checkpoint, metadata)):
            self.log(line)
