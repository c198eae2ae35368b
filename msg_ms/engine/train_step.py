"""One training step as one compiled graph: forward, loss, backward, clipping, update."""

from __future__ import annotations

from mindspore import Tensor, nn, ops

CLIP_EPSILON = 1e-6  # PyTorch's clip_grad_norm_ adds it to the norm


class TrainStep(nn.Cell):
    """``step(images, labels, rate)`` updates the model and gives (loss, gradient norm before clipping).

    ``clip_norm`` bounds the global L2 norm of the gradients; 0 leaves them alone. The norm is reported either way.
    """

    def __init__(self, model: nn.Cell, loss: nn.Cell, optimizer: nn.Cell, clip_norm: float):
        super().__init__(auto_prefix=False)  # a prefix would rename the model's parameters
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.clip_norm = clip_norm
        self.gradient = ops.value_and_grad(self.forward, None, optimizer.targets)
        self.set_train()

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.loss(self.model(images), labels)

    def construct(self, images: Tensor, labels: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
        loss, gradients = self.gradient(images, labels)
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
