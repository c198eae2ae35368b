"""One optimizer step as compiled graphs: forward, loss, backward, all-reduce, unscaling, clipping, optimizer, EMA."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import ParameterTuple, Tensor, nn, ops
from mindspore.amp import LossScaler
from mindspore.ops import partial

from ..data.pipeline import Batch, Signature, arrays_of, map_batch
from ..models.freeze import set_training
from ..ops import SquaredNorm
from .ema import WeightEMA
from .optim import SGD, AdamW, for_each

CLIP_EPSILON = 1e-6  # PyTorch's clip_grad_norm_ adds it to the norm


@dataclass(frozen=True)
class Figures:
    """The figures of a finished step.

    Attributes:
        losses: The total loss and the named losses, means over the ranks and batches.
        norm: The gradient norm before clipping; it is not finite where the step was skipped.
        scale: The loss scale after the step; NaN without a scaler.
        stop_requests: How many ranks were asked to stop before the step.
    """

    losses: list[float]
    norm: float
    scale: float
    stop_requests: int

    @property
    def finite(self) -> bool:
        """Whether losses and norm are finite."""
        return all(map(math.isfinite, (*self.losses, self.norm)))


@dataclass(frozen=True)
class PendingFigures:
    """The figures of a step that the device may still compute.

    Attributes:
        values: float32: each rank's losses of each batch and whether it was asked to stop, then norm and loss scale.
        batches: Batches per step and rank.
        world_size: Number of ranks.
    """

    values: Tensor
    batches: int
    world_size: int

    def read(self) -> Figures:
        """Wait for the device."""
        *rows, norm, scale = self.values.asnumpy()
        rows = np.array(rows, np.float32).reshape(self.world_size, -1)
        losses = rows[:, :-1].reshape(self.world_size, self.batches, -1)
        # A rank's mean is in single precision, the mean of the ranks in double.
        means = np.array([[np.mean(column.copy()) for column in rank.T] for rank in losses], np.float64)
        return Figures((means.sum(0) / self.world_size).tolist(), float(norm), float(scale), int(rows[:, -1].sum()))


def arguments(batch: Batch) -> tuple[Tensor, ...]:
    """Return all arrays of a batch as the arguments of a Cell, in the order of its fields.

    A named tuple stays on the host: in a graph MindSpore 2.10 treats it as a constant.
    """
    return tuple(map(Tensor, arrays_of(batch)))


def example(signature: Signature) -> tuple[Tensor, ...]:
    """Return the arguments for a batch of zeros, to compile a graph for."""
    return arguments(map_batch(lambda entry: np.zeros(*entry), signature))


class LossAndGradients(nn.Cell):
    """The losses of a batch and the gradients of the first one: ``(*batch) -> ((loss, *named losses), gradients)``.

    The gradients are those of the loss times the scaler's scale.

    Args:
        loss_cell: A Cell from the arrays of a batch to ``(loss, *named losses)``, all scalars.
        parameters: The parameters to differentiate with respect to.
        scaler: The loss scaler; None leaves the loss as it is.
    """

    def __init__(self, loss_cell: nn.Cell, parameters: ParameterTuple, scaler: LossScaler | None = None):
        super().__init__(auto_prefix=False)  # a prefix would rename the model's parameters
        self.loss_cell, self.scaler = loss_cell, scaler
        self.gradient = ops.value_and_grad(self.forward, None, parameters, has_aux=True)
        set_training(self)

    def forward(self, *batch: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the scaled loss, and all losses as they are."""
        losses = self.loss_cell(*batch)
        return losses[0] if self.scaler is None else losses[0] * self.scaler.scale_value, losses

    def construct(self, *batch: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return the losses and the gradients."""
        (_, losses), gradients = self.gradient(*batch)
        return losses, gradients


class OptimizerStep(nn.Cell):
    """Average gradients over ranks and batches, unscale, clip by the global norm, step, and update the EMA.

    With a scaler, a step whose gradients are not finite is skipped and the scale adjusted.

    Args:
        optimizer: The optimizer.
        clip_norm: Bound on the global L2 norm of the gradients; 0 disables clipping.
        scaler: The loss scaler, or None.
        ema: The moving average of the weights, or None.
        world_size: Number of ranks.
        gradient_sum: Sums the gradients over the ranks; None for one rank.
    """

    def __init__(
        self,
        optimizer: AdamW | SGD,
        clip_norm: float,
        scaler: LossScaler | None = None,
        ema: WeightEMA | None = None,
        world_size: int = 1,
        gradient_sum: nn.Cell | None = None,
    ):
        super().__init__(auto_prefix=False)
        self.optimizer, self.clip_norm, self.scaler, self.ema = optimizer, clip_norm, scaler, ema
        self.world_size, self.gradient_sum = world_size, gradient_sum
        self.squared_norm = SquaredNorm()
        self.one, self.nan = Tensor(1.0, ms.float32), Tensor(math.nan, ms.float32)
        self.batches = 1

    def construct(self, gradients: tuple[Tensor, ...], losses: tuple[Tensor, ...], control: Tensor) -> Tensor:
        """Make a step from gradients summed over batches.

        Args:
            gradients: The sums.
            losses: The losses of each batch, one batch after another.
            control: float32 (2,): the learning rate, and 1 if this rank is asked to stop.

        Returns:
            The values of ``PendingFigures``.
        """
        lr, divisor = control[0], float(self.batches * self.world_size)
        figures = ops.cat([value.astype(ms.float32).reshape(1) for value in (*losses, control[1])])
        if self.gradient_sum is not None:
            gradients, figures = self.gradient_sum(gradients, figures)
        if self.scaler is not None:
            divisor = divisor * self.scaler.scale_value
        norm = ops.sqrt(self.squared_norm(gradients)) / divisor
        factor = self.one / divisor
        if self.clip_norm > 0.0:
            factor = ops.minimum(self.clip_norm / (norm + CLIP_EPSILON), 1.0) / divisor
        if self.scaler is None:
            norm = ops.depend(norm, self.apply_to_weights(gradients, lr, factor))
            return ops.cat((figures, ops.stack([norm, self.nan])))
        finite = ops.isfinite(norm)
        if finite:
            norm = ops.depend(norm, self.apply_to_weights(gradients, lr, factor))
        norm = ops.depend(norm, self.scaler.adjust(finite))
        return ops.cat((figures, ops.stack([norm, self.scaler.scale_value])))

    def apply_to_weights(self, gradients: tuple[Tensor, ...], lr: Tensor, factor: Tensor) -> bool:
        """Step the optimizer on ``factor`` times the gradients, then the EMA."""
        done = self.optimizer(gradients, lr, factor)
        if self.ema is not None:
            done = ops.depend(self.ema(), done)
        return done


def _control(lr: float, stop: bool) -> Tensor:
    return Tensor([lr, stop], ms.float32)


class TrainStep(nn.Cell):
    """A step from one batch: ``(control, *batch)`` to the values of ``PendingFigures``."""

    def __init__(self, gradients: LossAndGradients, optimizer_step: OptimizerStep):
        super().__init__(auto_prefix=False)
        self.gradients, self.optimizer_step = gradients, optimizer_step

    def construct(self, control: Tensor, *batch: Tensor) -> Tensor:
        """Make a step; ``control`` is that of ``OptimizerStep``."""
        losses, gradients = self.gradients(*batch)
        return self.optimizer_step(gradients, losses, control)

    def launch(self, batches: Sequence[Batch], lr: float, stop: bool = False) -> PendingFigures:
        """Begin a step from the one batch in ``batches``, without waiting for the device.

        Args:
            batches: The batch.
            lr: The learning rate.
            stop: Whether this rank is asked to stop.
        """
        (batch,) = batches
        values = self(_control(lr, stop), *arguments(batch))
        return PendingFigures(values, 1, self.optimizer_step.world_size)

    def run(self, batches: Sequence[Batch], lr: float) -> tuple[list[float], float]:
        """Make a step from the one batch in ``batches``; return the losses and the gradient norm."""
        figures = self.launch(batches, lr).read()
        return figures.losses, figures.norm

    def compile_graphs(self, signatures: Sequence[Signature]) -> None:
        """Compile the step for batches of these signatures, in their order."""
        for signature in signatures:
            self.compile(_control(0.0, False), *example(signature))


class _Accumulate(nn.Cell):
    """Add a batch's gradients to the sums and return its losses."""

    def __init__(self, gradients: LossAndGradients, sums: ParameterTuple):
        super().__init__(auto_prefix=False)
        self.gradients, self.sums = gradients, sums

    def construct(self, *batch: Tensor) -> tuple[Tensor, ...]:
        losses, gradients = self.gradients(*batch)
        return ops.depend(losses, for_each(ops.assign_add, self.sums, gradients))


class _StepFromSums(nn.Cell):
    """Make a step from the mean of the accumulated gradients and set the sums back to zero."""

    def __init__(self, optimizer_step: OptimizerStep, sums: ParameterTuple):
        super().__init__(auto_prefix=False)
        self.optimizer_step, self.sums = optimizer_step, sums

    def construct(self, control: Tensor, *losses: Tensor) -> Tensor:
        values = self.optimizer_step(self.sums, losses, control)
        return ops.depend(values, for_each(partial(_clear_after, values), self.sums))


def _clear_after(values: Tensor, total: Tensor) -> Tensor:
    return ops.assign(ops.depend(total, values), ops.zeros_like(total))


class AccumulatedStep:
    """A step from ``count`` batches, as if they were one: mean gradient, one clipping, one optimizer step.

    The paper's code clips the running sum after every batch instead, so the first batches weigh more.
    """

    def __init__(self, gradients: LossAndGradients, optimizer_step: OptimizerStep, count: int, losses: int = 1):
        self.losses = losses
        self.count = optimizer_step.batches = count
        sums = optimizer_step.optimizer.targets.clone(prefix="gradient_sum", init="zeros")
        self.accumulate = _Accumulate(gradients, sums)
        self.optimizer_step = _StepFromSums(optimizer_step, sums)

    def launch(self, batches: Sequence[Batch], lr: float, stop: bool = False) -> PendingFigures:
        """Begin a step from ``count`` batches; see ``TrainStep.launch``."""
        if len(batches) != self.count:
            raise ValueError(f"a step needs {self.count} batches, got {len(batches)}")
        losses = [loss for batch in batches for loss in self.accumulate(*arguments(batch))]
        values = self.optimizer_step(_control(lr, stop), *losses)
        return PendingFigures(values, self.count, self.optimizer_step.optimizer_step.world_size)

    def run(self, batches: Sequence[Batch], lr: float) -> tuple[list[float], float]:
        """Make a step from ``count`` batches; return the mean losses and the gradient norm."""
        figures = self.launch(batches, lr).read()
        return figures.losses, figures.norm

    def compile_graphs(self, signatures: Sequence[Signature]) -> None:
        """Compile both parts for batches of these signatures, in their order."""
        for signature in signatures:
            self.accumulate.compile(*example(signature))
        losses = (Tensor(0.0, ms.float32),) * (self.count * self.losses)
        self.optimizer_step.compile(_control(0.0, False), *losses)


def build_step(
    gradients: LossAndGradients, optimizer_step: OptimizerStep, accumulation: int, losses: int = 1
) -> TrainStep | AccumulatedStep:
    """Return the step from ``accumulation`` batches; 0 means 1. The loss cell returns ``losses`` losses."""
    if accumulation > 1:
        return AccumulatedStep(gradients, optimizer_step, accumulation, losses)
    return TrainStep(gradients, optimizer_step)
