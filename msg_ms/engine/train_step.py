"""One optimizer step as compiled graphs: forward, loss, backward, all-reduce, unscaling, clipping, optimizer, EMA."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import ParameterTuple, Tensor, nn, ops
from mindspore.amp import LossScaler
from mindspore.ops import partial

from ..data.pipeline import Batch, Signature
from ..ops import SquaredNorm
from .ema import WeightEMA
from .optim import SGD, AdamW, for_each

CLIP_EPSILON = 1e-6  # PyTorch's clip_grad_norm_ adds it to the norm


def example(signature: Signature) -> tuple[Tensor, ...]:
    """Return zeros of the shapes and types of a batch, to compile a graph for."""
    return tuple(Tensor(np.zeros(shape, dtype)) for shape, dtype in signature)


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
        self.set_train()

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
        self.one = Tensor(1.0, ms.float32)

    def construct(self, gradients: tuple[Tensor, ...], lr: Tensor, batches: int) -> Tensor:
        """Make a step from gradients summed over ``batches``.

        Returns:
            The gradient norm before clipping; it is not finite where the step was skipped.
        """
        divisor = float(batches * self.world_size)
        if self.gradient_sum is not None:
            gradients = self.gradient_sum(gradients)
        if self.scaler is not None:
            divisor = divisor * self.scaler.scale_value
        norm = ops.sqrt(self.squared_norm(gradients)) / divisor
        factor = self.one / divisor
        if self.clip_norm > 0.0:
            factor = ops.minimum(self.clip_norm / (norm + CLIP_EPSILON), 1.0) / divisor
        if self.scaler is None:
            return ops.depend(norm, self.apply_to_weights(gradients, lr, factor))
        finite = ops.isfinite(norm)
        if finite:
            norm = ops.depend(norm, self.apply_to_weights(gradients, lr, factor))
        return ops.depend(norm, self.scaler.adjust(finite))

    def apply_to_weights(self, gradients: tuple[Tensor, ...], lr: Tensor, factor: Tensor) -> bool:
        """Step the optimizer on ``factor`` times the gradients, then the EMA."""
        done = self.optimizer(gradients, lr, factor)
        if self.ema is not None:
            done = ops.depend(self.ema(), done)
        return done


class TrainStep(nn.Cell):
    """A step from one batch: ``(lr, *batch) -> (losses, gradient norm before clipping)``."""

    def __init__(self, gradients: LossAndGradients, optimizer_step: OptimizerStep):
        super().__init__(auto_prefix=False)
        self.gradients, self.optimizer_step = gradients, optimizer_step

    def construct(self, lr: Tensor, *batch: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Make a step; return the losses and the gradient norm."""
        losses, gradients = self.gradients(*batch)
        return losses, self.optimizer_step(gradients, lr, 1)

    def run(self, batches: Sequence[Batch], lr: float) -> tuple[list[float], float]:
        """Make a step from the one batch in ``batches``; return the losses and the gradient norm."""
        (batch,) = batches
        losses, norm = self(Tensor(lr, ms.float32), *map(Tensor, batch))
        return [float(loss.asnumpy()) for loss in losses], float(norm.asnumpy())

    def compile_graphs(self, signatures: Sequence[Signature]) -> None:
        """Compile the step for batches of these signatures, in their order."""
        for signature in signatures:
            self.compile(Tensor(0.0, ms.float32), *example(signature))


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

    def __init__(self, optimizer_step: OptimizerStep, sums: ParameterTuple, count: int):
        super().__init__(auto_prefix=False)
        self.optimizer_step, self.sums, self.count = optimizer_step, sums, count

    def construct(self, lr: Tensor) -> Tensor:
        norm = self.optimizer_step(self.sums, lr, self.count)
        return ops.depend(norm, for_each(partial(_clear_after, norm), self.sums))


def _clear_after(norm: Tensor, total: Tensor) -> Tensor:
    return ops.assign(ops.depend(total, norm), ops.zeros_like(total))


class AccumulatedStep:
    """A step from ``count`` batches, as if they were one: mean gradient, one clipping, one optimizer step.

    The paper's code clips the running sum after every batch instead, so the first batches weigh more.
    """

    def __init__(self, gradients: LossAndGradients, optimizer_step: OptimizerStep, count: int):
        self.count = count
        sums = optimizer_step.optimizer.targets.clone(prefix="gradient_sum", init="zeros")
        self.accumulate = _Accumulate(gradients, sums)
        self.optimizer_step = _StepFromSums(optimizer_step, sums, count)

    def run(self, batches: Sequence[Batch], lr: float) -> tuple[list[float], float]:
        """Make a step from ``count`` batches; return the mean losses and the gradient norm."""
        if len(batches) != self.count:
            raise ValueError(f"a step needs {self.count} batches, got {len(batches)}")
        losses = [self.accumulate(*map(Tensor, batch)) for batch in batches]
        norm = self.optimizer_step(Tensor(lr, ms.float32))
        rows = [[loss.asnumpy() for loss in row] for row in losses]
        return [float(np.mean(column)) for column in zip(*rows, strict=True)], float(norm.asnumpy())

    def compile_graphs(self, signatures: Sequence[Signature]) -> None:
        """Compile both parts for batches of these signatures, in their order."""
        for signature in signatures:
            self.accumulate.compile(*example(signature))
        self.optimizer_step.compile(Tensor(0.0, ms.float32))


def build_step(
    gradients: LossAndGradients, optimizer_step: OptimizerStep, accumulation: int
) -> TrainStep | AccumulatedStep:
    """Return the step from ``accumulation`` batches; 0 means 1."""
    if accumulation > 1:
        return AccumulatedStep(gradients, optimizer_step, accumulation)
    return TrainStep(gradients, optimizer_step)
