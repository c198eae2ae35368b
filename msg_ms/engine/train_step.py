"""One training step as one compiled graph: forward, loss, backward, clipping, update."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import ParameterTuple, Tensor, nn, ops

_DEPTH = 2  # keeps these draws apart from those of the data
CLIP_EPSILON = 1e-6  # PyTorch's clip_grad_norm_ adds it to the norm


MicroBatch = tuple[np.ndarray, np.ndarray, np.ndarray]  # images, labels, draws of stochastic depth


class _LossAndGradients(nn.Cell):
    """(loss, gradients) of one batch."""

    def __init__(self, model: nn.Cell, loss: nn.Cell, parameters: ParameterTuple):
        super().__init__(auto_prefix=False)  # a prefix would rename the model's parameters
        self.model, self.loss = model, loss
        self.gradient = ops.value_and_grad(self.forward, None, parameters)

    def forward(self, images: Tensor, labels: Tensor, draws: Tensor) -> Tensor:
        return self.loss(self.model(images, draws), labels)

    def construct(self, images: Tensor, labels: Tensor, draws: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.gradient(images, labels, draws)


class _ClippedUpdate(nn.Cell):
    """Clip gradients by their global norm, update, and give the norm before clipping."""

    def __init__(self, optimizer: nn.Cell, clip_norm: float):
        super().__init__(auto_prefix=False)
        self.optimizer, self.clip_norm = optimizer, clip_norm

    def construct(self, gradients: tuple[Tensor, ...], rate: Tensor) -> Tensor:
        squares = ()
        for gradient in gradients:
            squares = (*squares, ops.square(gradient).sum())
        norm = ops.sqrt(ops.addn(squares))
        if self.clip_norm > 0.0:
            scale = ops.minimum(self.clip_norm / (norm + CLIP_EPSILON), 1.0)
            clipped = ()
            for gradient in gradients:
                clipped = (*clipped, gradient * scale)
            gradients = clipped
        return ops.depend(norm, self.optimizer(gradients, rate))


class TrainStep(nn.Cell):
    """One update from one batch: ``step(images, labels, rate, draws)`` gives (loss, gradient norm before clipping).

    ``clip_norm`` bounds the global L2 norm of the gradients, 0 leaves them alone; the norm is reported either way.
    ``draws`` (blocks, 2, B) are what stochastic depth goes by, see :func:`drop_path_draws`.
    """

    def __init__(self, model: nn.Cell, loss: nn.Cell, optimizer: nn.Cell, clip_norm: float):
        super().__init__(auto_prefix=False)
        self.gradients = _LossAndGradients(model, loss, optimizer.targets)
        self.update = _ClippedUpdate(optimizer, clip_norm)
        self.set_train()

    def construct(self, images: Tensor, labels: Tensor, rate: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        loss, gradients = self.gradients(images, labels, draws)
        return loss, self.update(gradients, rate)

    def run(self, batches: Sequence[MicroBatch], rate: float) -> tuple[float, float]:
        """One update from the one batch in ``batches``: (loss, gradient norm)."""
        ((images, labels, draws),) = batches
        loss, norm = self(Tensor(images), Tensor(labels), Tensor(rate, ms.float32), Tensor(draws))
        return float(loss.asnumpy()), float(norm.asnumpy())


class _Accumulate(nn.Cell):
    """Add a batch's gradients to the sums and give its loss."""

    def __init__(self, gradients: _LossAndGradients, sums: ParameterTuple):
        super().__init__(auto_prefix=False)
        self.gradients, self.sums = gradients, sums

    def construct(self, images: Tensor, labels: Tensor, draws: Tensor) -> Tensor:
        loss, gradients = self.gradients(images, labels, draws)
        for i in range(len(self.sums)):
            loss = ops.depend(loss, ops.assign_add(self.sums[i], gradients[i]))
        return loss


class _UpdateFromSums(nn.Cell):
    """Update from the mean of the accumulated gradients and set the sums back to zero."""

    def __init__(self, update: _ClippedUpdate, sums: ParameterTuple, count: int):
        super().__init__(auto_prefix=False)
        self.update, self.sums, self.count = update, sums, count

    def construct(self, rate: Tensor) -> Tensor:
        means = ()
        for total in self.sums:
            means = (*means, total / self.count)
        norm = self.update(means, rate)
        for total in self.sums:
            norm = ops.depend(norm, ops.assign(ops.depend(total, norm), ops.zeros_like(total)))
        return norm


class AccumulatedStep:
    """One update from ``count`` batches, as if they were one: mean gradient, one clipping, one optimizer step.

    The paper's code clips the running sum after every batch instead, which lets the first batches weigh more.
    """

    def __init__(self, model: nn.Cell, loss: nn.Cell, optimizer: nn.Cell, clip_norm: float, count: int):
        self.count = count
        sums = optimizer.targets.clone(prefix="gradient_sum", init="zeros")
        self.accumulate = _Accumulate(_LossAndGradients(model, loss, optimizer.targets), sums).set_train()
        self.update = _UpdateFromSums(_ClippedUpdate(optimizer, clip_norm), sums, count)

    def run(self, batches: Sequence[MicroBatch], rate: float) -> tuple[float, float]:
        """One update from ``count`` batches: (mean loss, gradient norm)."""
        if len(batches) != self.count:
            raise ValueError(f"an update takes {self.count} batches, not {len(batches)}")
        losses = [self.accumulate(*map(Tensor, batch)) for batch in batches]
        norm = self.update(Tensor(rate, ms.float32))
        return float(np.mean([loss.asnumpy() for loss in losses])), float(norm.asnumpy())


def build_step(
    model: nn.Cell, loss: nn.Cell, optimizer: nn.Cell, clip_norm: float, accumulation: int
) -> TrainStep | AccumulatedStep:
    """The step of one update from ``accumulation`` batches (0 and 1 both stand for one)."""
    if accumulation > 1:
        return AccumulatedStep(model, loss, optimizer, clip_norm, accumulation)
    return TrainStep(model, loss, optimizer, clip_norm)


def drop_path_draws(blocks: int, batch: int, seed: int, batch_number: int, rank: int = 0) -> np.ndarray:
    """Uniform float32 (blocks, 2, batch) that follows from (seed, batch number, rank): a resumed run draws the same."""
    return np.random.default_rng((seed, batch_number, rank, _DEPTH)).random((blocks, 2, batch), np.float32)
