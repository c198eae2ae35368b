"""One training step as one compiled graph: forward, loss, backward, clipping, update."""

from __future__ import annotations

import numpy as np
from mindspore import Tensor, nn, ops

_DEPTH = 2  # keeps these draws apart from those of the data
CLIP_EPSILON = 1e-6  # PyTorch's clip_grad_norm_ adds it to the norm


class TrainStep(nn.Cell):
    """``step(images, labels, rate, draws)`` updates the model and gives (loss, gradient norm before clipping).

    ``draws`` (blocks, 2, B) are what stochastic depth goes by, see :func:`drop_path_draws`.

    ``clip_norm`` bounds the global L2 norm of the gradients; 0 leaves them alone. The norm is reported either way.
    """

    def __init__(self, model: nn.Cell, loss: nn.Cell, optimizer: nn.Cell, clip_norm: float):
        super().__init__(auto_prefix=False)  # a prefix would rename the model's parameters
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.clip_norm = clip_norm
        self.gradient = ops.value_and_grad(self.forward, None, optimizer.targets)
        self.set_train()

    def forward(self, images: Tensor, labels: Tensor, draws: Tensor) -> Tensor:
        return self.loss(self.model(images, draws), labels)

    def construct(self, images: Tensor, labels: Tensor, rate: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        loss, gradients = self.gradient(images, labels, draws)
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
        return ops.depend(loss, self.optimizer(gradients, rate)), norm


def drop_path_draws(blocks: int, batch: int, seed: int, step: int, rank: int = 0) -> np.ndarray:
    """Uniform float32 (blocks, 2, batch) that follows from (seed, step, rank), so that a resumed run draws the same."""
    return np.random.default_rng((seed, step, rank, _DEPTH)).random((blocks, 2, batch), np.float32)
