"""The squared norm of many tensors, for clipping gradients by their global norm."""

from __future__ import annotations

from mindspore import Tensor, nn, ops

from .backend import kernel


def _square_sum(x: Tensor) -> Tensor:
    return ops.square(x).sum()


class SquaredNorm(nn.Cell):
    """The sum of squares over all elements of several tensors."""

    def __init__(self):
        super().__init__()
        # MindSpore unrolls a loop over hundreds of tensors into nested calls; HyperMap doesn't.
        self.for_each = ops.HyperMap()
        self.native = kernel("squared_norm", lambda *shapes: [1])

    def construct(self, tensors: tuple[Tensor, ...]) -> Tensor:
        """Sum the squares.

        Args:
            tensors: float32 tensors of any shapes.

        Returns:
            Scalar, float32.
        """
        if self.native is not None:
            return self.native(*tensors).reshape(())
        return ops.addn(self.for_each(_square_sum, tensors))
