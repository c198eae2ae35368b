"""The interface between the engine and a task.

A task supplies the model, the data, the loss and the evaluator. The engine owns the training loop. Batches are tuples
of arrays, as many as the task's cells accept; the engine never looks inside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from mindspore import Parameter, Tensor, nn

from ..checkpoint import Metadata, load_pretrained
from ..data.pipeline import Batch, EpochOrder, Shard, Signature
from ..deploy.exporter import Exporter
from ..errors import UserError
from ..models.decay import has_weight_decay
from ..report import Report
from .outputs import EvalOutputs
from .predictor import DEFAULT_OPTIONS, PredictOptions, Predictor
from .ranks import Ranks


@dataclass(frozen=True)
class Metric:
    """A figure that evaluation computes.

    Attributes:
        key: Its name in ``metrics.jsonl``.
        title: Its name in the log.
        format: A format string for its value.
        higher_is_better: Whether larger values are better.
        breaks_ties: Whether it decides between two epochs of equal primary metric.
    """

    key: str
    title: str
    format: str = "{:.4f}"
    higher_is_better: bool = True
    breaks_ties: bool = False

    def text(self, value: float) -> str:
        """Return title and value for the log."""
        return f"{self.title} {self.format.format(value)}"


@dataclass(frozen=True)
class Metrics:
    """The result of an evaluation.

    Attributes:
        definitions: The metrics; the first one is primary and selects the best checkpoint.
        values: Their values by key; None is undefined, such as a mean over nothing.
        count: How many samples were evaluated.
        unit: Name of the samples, in the plural.
        undefined: Why a value may be undefined.
    """

    definitions: tuple[Metric, ...]
    values: dict[str, float | None]
    count: int
    unit: str = "images"
    undefined: str = ""

    @property
    def rank(self) -> tuple[float, float]:
        """The primary metric and the tie-breaker, signed so that larger is better; minus infinity if undefined."""
        primary = self.definitions[0]
        tie = next((metric for metric in self.definitions if metric.breaks_ties), primary)
        return self._signed(primary), self._signed(tie)

    @property
    def is_defined(self) -> bool:
        """Whether the primary metric has a value."""
        return self.values[self.definitions[0].key] is not None

    def require_finite(self) -> Metrics:
        """Return the metrics; raise UserError if the tie-breaking or primary metric is not finite."""
        if not all(map(math.isfinite, self.rank)) and self.is_defined:
            raise UserError(f"model outputs are not finite (NaN/Inf): {self}; the weights are damaged")
        return self

    def rows(self) -> list[tuple[str, str, float | None, str]]:
        """Return key, title, value and text of the metrics, for a report."""
        rows = ((metric, self.values[metric.key]) for metric in self.definitions)
        return [(m.key, m.title, v, "undefined" if v is None else m.format.format(v)) for m, v in rows]

    def _signed(self, metric: Metric) -> float:
        value = self.values[metric.key]
        if value is None:
            return -math.inf
        return value if metric.higher_is_better else -value

    def __str__(self) -> str:
        values = [(metric, self.values[metric.key]) for metric in self.definitions]
        defined = ", ".join(metric.text(value) for metric, value in values if value is not None)
        if not defined:
            return f"no metrics on {self.count} {self.unit}: {self.undefined}"
        others = ", ".join(metric.title for metric, value in values if value is None)
        return f"{defined} on {self.count} {self.unit}" + (f"; undefined: {others}" if others else "")


class TrainData(Protocol):
    """Training batches in a fixed order.

    Attributes:
        steps: Optimizer steps per epoch.
        order: The order of the samples, with batch size, accumulation and shard.
        signatures: Shape and type of every array, for each kind of batch; empty if unknown.
    """

    steps: int
    order: EpochOrder
    signatures: Sequence[Signature]

    def batches(self, first_step: int, epochs: int, log: Callable[[str], None]) -> Iterator[Batch]:
        """Yield the batches from ``first_step`` to the end of the last epoch, as the loss cell accepts them."""

    def files_of(self, step: int) -> list[str]:
        """Return the names of the samples of a step, for the report on a bad batch."""

    def __len__(self) -> int:
        """Return the number of samples on all ranks."""


class EvalData(Protocol):
    """Evaluation batches of one shard.

    Attributes:
        steps: Number of batches.
        signatures: As in ``TrainData``.
    """

    steps: int
    signatures: Sequence[Signature]

    def batches(self) -> Iterator[Batch]:
        """Yield all batches, as the evaluator's network accepts them."""


class Evaluator(Protocol):
    """Turns batches into metrics.

    Attributes:
        network: A Cell that runs on the arrays of a batch and returns a tuple of tensors.
    """

    network: nn.Cell

    def reset(self) -> None:
        """Forget all batches."""

    def update(self, batch: Any, outputs: tuple[Tensor, ...]) -> None:
        """Add the network's outputs for a batch."""

    def compute(self, ranks: Ranks) -> Metrics:
        """Return the metrics over all batches of all ranks."""


class DetailedEvaluator(Evaluator, Protocol):
    """An evaluator with the outputs that ``Task.check_outputs`` allows, after ``compute`` on rank 0."""

    def write_results(self, path: Path) -> None:
        """Write the outputs for every sample, for other programs."""

    def per_class(self) -> Sequence[str]:
        """Return a line for each class."""


class Task:
    """A kind of model with its data, loss and metrics. Subclasses implement the methods that raise.

    Attributes:
        metrics: The evaluation's metrics, the primary one first.
        loss_names: Names of the losses that the loss cell returns after the total.
        sample_name: Name of the samples, in the plural, for the log.
    """

    metrics: tuple[Metric, ...]
    loss_names: tuple[str, ...] = ()
    sample_name: str = "images"

    def prepare(self, ranks: Ranks) -> None:
        """Read the description of the data that all ranks need; see ``msg_ms.engine.shared``."""

    def fingerprint(self) -> Iterable[bytes]:
        """Return data that must agree on all ranks, such as the names of the files."""
        return ()

    def warnings(self) -> Sequence[str]:
        """Return lines on the data that a person should read before training."""
        return ()

    def metadata(self) -> dict[str, str]:
        """Return text to store in every checkpoint."""
        return {}

    def check_resume(self, path: Path, metadata: Metadata) -> None:
        """Raise UserError if a run that wrote this metadata can't be resumed with the task's data."""

    def check_inference(self, path: Path, metadata: Metadata) -> Sequence[str]:
        """Return lines on differences between a checkpoint's metadata and the task's data that change its metrics."""
        return ()

    def build_model(self) -> nn.Cell:
        """Return the model in the configured precision."""
        raise NotImplementedError

    def has_weight_decay(self, parameter: Parameter) -> bool:
        """Return whether weight decay applies to a parameter of the model."""
        return has_weight_decay(parameter)

    def describe(self, model: nn.Cell) -> str:
        """Return a line on the model for the log."""
        return f"{sum(parameter.size for parameter in model.trainable_params()):,} parameters"

    def load_pretrained(self, model: nn.Cell, path: Path) -> list[str]:
        """Set the model's weights from a checkpoint for fine-tuning; return a line for each change."""
        return load_pretrained(model, path)

    def train_data(self, shard: Shard, workers: int) -> TrainData:
        """Return the training data of one shard."""
        raise NotImplementedError

    def draw_batch(self, batch: Any) -> tuple[list[tuple[np.ndarray, str]], int]:
        """Return drawings of a training batch, uint8 RGB (H, W, 3), with captions, and the side of a tile in pixels.

        Args:
            batch: Arrays of the host.

        Raises:
            UserError: The task does not draw its samples.
        """
        raise UserError("the samples of this TASK can't be drawn")

    def eval_data(self, shard: Shard, workers: int) -> EvalData:
        """Return the evaluation data of one shard."""
        raise NotImplementedError

    def loss_cell(self, model: nn.Cell) -> nn.Cell:
        """Return a Cell from the arrays of a batch to ``(total loss, *named losses)``, all scalars."""
        raise NotImplementedError

    def evaluator(self, model: nn.Cell) -> Evaluator:
        """Return the evaluator of a model."""
        raise NotImplementedError

    def detailed_evaluator(self, model: nn.Cell) -> Evaluator:
        """Return an evaluator with the outputs that ``check_outputs`` allows; it may need more memory."""
        return self.evaluator(model)

    def check_outputs(self, outputs: EvalOutputs) -> None:
        """Raise UserError if the evaluation has no such output, or it can't be written."""
        for flag in outputs.flags:
            raise UserError(f"{flag}: the evaluation of this TASK has no such output")

    def report(self, evaluator: Any, metrics: Metrics) -> Report:
        """Return the report on an evaluation, on rank 0.

        Args:
            evaluator: The ``detailed_evaluator`` after ``compute``.
            metrics: Its result.

        Raises:
            UserError: The task has no reports.
        """
        raise UserError("--report: the evaluation of this TASK has no such output")

    def predictor(self, model: nn.Cell, metadata: Metadata, options: PredictOptions = DEFAULT_OPTIONS) -> Predictor:
        """Return the predictor of a model, and prepare the model for inference.

        Args:
            model: The task's model, with its weights, in evaluation mode.
            metadata: That of the checkpoint of the weights.
            options: The wishes of the person who asks.

        Raises:
            UserError: The task has no such predictions.
        """
        raise UserError("this TASK makes no predictions for files")

    def output_names(self, metadata: Metadata) -> Sequence[str]:
        """Return the names of a model's outputs in their order, from the metadata of its checkpoint; may be empty."""
        return ()

    def exporter(self) -> Exporter:
        """Return the exporter of the task's models; raise UserError if there is none."""
        raise UserError("the models of this TASK can't be exported")

    def optimize_for_inference(self, model: nn.Cell, **options: Any) -> None:
        """Prepare the model for faster inference, in place, where possible.

        Args:
            model: The task's model, with its weights.
            options: As of ``msg_ms.optimize_for_inference``, without the precision, which the configuration has.

        Raises:
            UserError: The task, the device or the CPU does not support the configuration's ``INFERENCE_PRECISION``.
        """

    def inference_inputs(self, batch: Any) -> tuple[np.ndarray, ...]:
        """Return the arrays of an evaluation batch that the model itself accepts."""
        return batch[:1]
