"""One training step as compiled graphs: forward, loss, backward, all-reduce, unscaling, clipping, update, averaging."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import ParameterTuple, Tensor, nn, ops
from mindspore.amp import LossScaler
from mindspore.ops import partial

from ..ops import SquaredNorm
from .compile_cache import CachedCell
from .ema import WeightEMA
from .optim import SGD, AdamW, for_each

_DEPTH = 2  # keeps these draws apart from those of the data
CLIP_EPSILON = 1e-6  # PyTorch's clip_grad_norm_ adds it to the norm


MicroBatch = tuple[np.ndarray, np.ndarray, np.ndarray]  # images, labels, draws of stochastic depth


class LossAndGradients(nn.Cell):
    """(loss, gradients) of one batch; the gradients are those of the loss times the scaler's scale."""

    def __init__(self, model: nn.Cell, loss: nn.Cell, parameters: ParameterTuple, scaler: LossScaler | None = None):
        super().__init__(auto_prefix=False)  # a prefix would rename the model's parameters
        self.model, self.loss, self.scaler = model, loss, scaler
        self.gradient = ops.value_and_grad(self.forward, None, parameters, has_aux=True)
        self.set_train()

    def forward(self, images: Tensor, labels: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        loss = self.loss(self.model(images, draws), labels)
        return loss if self.scaler is None else loss * self.scaler.scale_value, loss

    def construct(self, images: Tensor, labels: Tensor, draws: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        (_, loss), gradients = self.gradient(images, labels, draws)
        return loss, gradients


class Update(nn.Cell):
    """Average over ranks and batches, unscale, clip by the global norm, update, and average the weights.

    ``clip_norm`` bounds the global L2 norm of the gradients, 0 leaves them alone. With a ``scaler`` an update whose
    gradients are not finite is left out and the scale adjusted. Gives the norm before clipping, which tells of both.
    ``gradient_sum`` adds up the gradients of ``world`` ranks.
    """

    def __init__(
        self,
        optimizer: AdamW | SGD,
        clip_norm: float,
        scaler: LossScaler | None = None,
        average: WeightEMA | None = None,
        world: int = 1,
        gradient_sum: nn.Cell | None = None,
    ):
        super().__init__(auto_prefix=False)
        self.optimizer, self.clip_norm, self.scaler, self.average = optimizer, clip_norm, scaler, average
        self.world, self.gradient_sum = world, gradient_sum
        self.squared_norm = SquaredNorm()
        self.one = Tensor(1.0, ms.float32)

    def construct(self, gradients: tuple[Tensor, ...], rate: Tensor, batches: int) -> Tensor:
        """``gradients`` are summed over ``batches``."""
        divisor = float(batches * self.world)
        if self.gradient_sum is not None:
            gradients = self.gradient_sum(gradients)
        if self.scaler is not None:
            divisor = divisor * self.scaler.scale_value
        norm = ops.sqrt(self.squared_norm(gradients)) / divisor
        factor = self.one / divisor
        if self.clip_norm > 0.0:
            factor = ops.minimum(self.clip_norm / (norm + CLIP_EPSILON), 1.0) / divisor
        if self.scaler is None:
            return ops.depend(norm, self.apply_to_weights(gradients, rate, factor))
        finite = ops.isfinite(norm)
        if finite:
            norm = ops.depend(norm, self.apply_to_weights(gradients, rate, factor))
        return ops.depend(norm, self.scaler.adjust(finite))

    def apply_to_weights(self, gradients: tuple[Tensor, ...], rate: Tensor, factor: Tensor) -> bool:
        done = self.optimizer(gradients, rate, factor)
        if self.average is not None:
            done = ops.depend(self.average(), done)
        return done


class TrainStep(CachedCell):
    """One update from one batch: ``step(images, labels, rate, draws)`` gives (loss, gradient norm before clipping).

    ``draws`` (blocks, 2, B) are what stochastic depth goes by, see :func:`drop_path_noise`.
    """

    def __init__(self, gradients: LossAndGradients, update: Update):
        super().__init__(auto_prefix=False)
        self.gradients, self.update = gradients, update

    def construct(self, images: Tensor, labels: Tensor, rate: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        loss, gradients = self.gradients(images, labels, draws)
        return loss, self.update(gradients, rate, 1)

    def run(self, batches: Sequence[MicroBatch], rate: float) -> tuple[float, float]:
        """One update from the one batch in ``batches``: (loss, gradient norm)."""
        ((images, labels, draws),) = batches
        loss, norm = self(Tensor(images), Tensor(labels), Tensor(rate, ms.float32), Tensor(draws))
        return float(loss.asnumpy()), float(norm.asnumpy())


class _Accumulate(CachedCell):
    """Add a batch's gradients to the sums and give its loss."""

    def __init__(self, gradients: LossAndGradients, sums: ParameterTuple):
        super().__init__(auto_prefix=False)
        self.gradients, self.sums = gradients, sums

    def construct(self, images: Tensor, labels: Tensor, draws: Tensor) -> Tensor:
        loss, gradients = self.gradients(images, labels, draws)
        return ops.depend(loss, for_each(ops.assign_add, self.sums, gradients))


class _UpdateFromSums(CachedCell):
    """Update from the mean of the accumulated gradients and set the sums back to zero."""

    def __init__(self, update: Update, sums: ParameterTuple, count: int):
        super().__init__(auto_prefix=False)
        self.update, self.sums, self.count = update, sums, count

    def construct(self, rate: Tensor) -> Tensor:
        norm = self.update(self.sums, rate, self.count)
        return ops.depend(norm, for_each(partial(_clear_after, norm), self.sums))


def _clear_after(norm: Tensor, total: Tensor) -> Tensor:
    return ops.assign(ops.depend(total, norm), ops.zeros_like(total))


class AccumulatedStep:
    """One update from ``count`` batches, as if they were one: mean gradient, one clipping, one optimizer step.

    The paper's code clips the running sum after every batch instead, which lets the first batches weigh more.
    """

    def __init__(self, gradients: LossAndGradients, update: Update, count: int):
        self.count = count
        sums = update.optimizer.targets.clone(prefix="gradient_sum", init="zeros")
        self.accumulate = _Accumulate(gradients, sums)
        self.update = _UpdateFromSums(update, sums, count)

    def run(self, batches: Sequence[MicroBatch], rate: float) -> tuple[float, float]:
        """One update from ``count`` batches: (mean loss, gradient norm)."""
        if len(batches) != self.count:
            raise ValueError(f"an update takes {self.count} batches, not {len(batches)}")
        losses = [self.accumulate(*map(Tensor, batch)) for batch in batches]
        norm = self.update(Tensor(rate, ms.float32))
        return float(np.mean([loss.asnumpy() for loss in losses])), float(norm.asnumpy())


def build_step(gradients: LossAndGradients, update: Update, accumulation: int) -> TrainStep | AccumulatedStep:
    """The step of one update from ``accumulation`` batches (0 and 1 both stand for one)."""
    return AccumulatedStep(gradients, update, accumulation) if accumulation > 1 else TrainStep(gradients, update)


def drop_path_noise(blocks: int, batch: int, seed: int, batch_number: int, rank: int = 0) -> np.ndarray:
    """Uniform float32 (blocks, 2, batch) that follows from (seed, batch number, rank): a resumed run draws the same."""
    return np.random.default_rng((seed, batch_number, rank, _DEPTH)).random((blocks, 2, batch), np.float32)
