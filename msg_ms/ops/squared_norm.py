"""The sum of squares of many tensors: what clipping by the global norm needs of the gradients."""

from __future__ import annotations

from mindspore import Tensor, nn, ops

from .backend import kernel


def _square_sum(x: Tensor) -> Tensor:
    return ops.square(x).sum()


class SquaredNorm(nn.Cell):
    """Sum of the squares of all elements of a tuple of float32 tensors: a scalar, float32."""

    def __init__(self):
        super().__init__()
        # MindSpore's loops over hundreds of tensors would be unrolled into calls within calls.
        self.for_each = ops.HyperMap()
        self.native = kernel("squared_norm", lambda *shapes: [1])

    def construct(self, tensors: tuple[Tensor, ...]) -> Tensor:
        if self.native is not None:
            return self.native(*tensors).reshape(())
        return ops.addn(self.for_each(_square_sum, tensors))
