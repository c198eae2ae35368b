"""A run without training: the metrics of a checkpoint, or the model's speed."""

from __future__ import annotations

from pathlib import Path

from mindspore import nn

from ..checkpoint import load_for_inference
from ..errors import UserError
from .evaluate import Evaluation
from .log import RunLog
from .runtime import Runtime
from .throughput import measure_throughput


class CheckpointRun:
    """Evaluates a checkpoint of a run, or measures the speed of its model.

    Args:
        runtime: Configuration, task and ranks.
        model: The task's model.
        log: The log of the run.
    """

    def __init__(self, runtime: Runtime, model: nn.Cell, log: RunLog):
        self.model, self.log, self.config, self.task = model, log, runtime.config, runtime.task
        self.evaluation = Evaluation.of_run(runtime, model, log.progress_bar)

    def evaluate(self) -> str:
        """Return a line with the metrics of ``MODEL.RESUME``, or of the run's best checkpoint.

        Raises:
            UserError: If the model's outputs are not finite, or ``INFERENCE_PRECISION`` is not float32.
        """
        path = self._load_checkpoint()
        if self.config.inference_precision != "float32":
            raise UserError("train.py --eval evaluates in the precision of training; use eval.py --inference-precision")
        return f"{path}: {self.evaluation.run().require_finite()}"

    def measure_throughput(self) -> str:
        """Return a line with the inference speed on the first evaluation batch, with random weights if need be."""
        if self.config.model.resume or (self.config.run_dir / "best.ckpt").exists():
            self._load_checkpoint()
        else:
            self.log.info("no checkpoint: the speed is that of a model with random weights")
        batch = next(self.evaluation.data.batches())
        self.task.optimize_for_inference(self.model, strassen=True)
        line = measure_throughput(self.model, self.task.inference_inputs(batch), self.task.sample_name)
        half = self.config.inference_precision if self.config.inference_precision != "float32" else ""
        return f"{line}, precision {half or self.config.amp_opt_level}"

    def _load_checkpoint(self) -> Path:
        path = Path(self.config.model.resume or self.config.run_dir / "best.ckpt")
        lines, metadata = load_for_inference(self.model, path)
        for line in (*lines, *self.task.check_inference(path, metadata)):
            self.log.info(line)
        return path
