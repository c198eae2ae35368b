"""Inference in bfloat16: a detector's convolutions of channels-first maps, and its linear layers of large inputs.

The 3x3 convolution is Winograd's algorithm with products of 16-bit integers, which cost as much as those in bfloat16.
Each row of an operand has a scale of its own, and the sums are exact. In bfloat16 the transforms would multiply the
rounding errors by 4; this way they are a third of those of the convolution's definition in bfloat16.

Shape letters: B images, C input channels, O output channels, H x W pixels.
"""

from __future__ import annotations

import numpy as np
from mindspore import Tensor, nn

from .backend import kernel
from .packed import LINEAR_BLOCK


class BFloat16MapConv(nn.Cell):
    """A convolution with stride 1 that keeps the sides: (B, C, H, W) -> (B, O, H, W).

    A NaN or an infinity reaches every output of its tile of 4 x 4 outputs.

    Args:
        kernel_size: 1 or 3.
    """

    def __init__(self, kernel_size: int):
        super().__init__()
        self.with_relu, self.without_relu = (Tensor(np.array([relu], np.float32)) for relu in (1, 0))
        name = {1: "conv1x1_bfloat16", 3: "conv3x3_int16"}[kernel_size]
        self.native = kernel(name, lambda x, weight, bias, _: [x[0], bias[0], *x[2:]])

    def construct(self, x: Tensor, weight: Tensor, bias: Tensor, relu: bool = False) -> Tensor:
        """Convolve maps.

        Args:
            x: (B, C, H, W), float32.
            weight: (O, C, 1, 1), or (O, C, 3, 3) packed by ``WeightPacker.conv3x3``.
            bias: (O,), float32.
            relu: apply a ReLU at the end.

        Returns:
            (B, O, H, W), float32.
        """
        return self.native(x, weight, bias, self.with_relu if relu else self.without_relu)


class BFloat16LinearReLU(nn.Cell):
    """A linear layer with a ReLU, relu(x w^T + b)."""

    def __init__(self):
        super().__init__()
        self.settings = Tensor(np.array([LINEAR_BLOCK], np.float32))
        self.native = kernel("linear_relu_bfloat16", lambda x, weight, bias, _: [x[0], bias[0]])

    def construct(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Multiply rows.

        Args:
            x: (rows, C), float32.
            weight: (O, C) packed by ``WeightPacker.linear``.
            bias: (O,), float32.

        Returns:
            (rows, O), float32.
        """
        return self.native(x, weight, bias, self.settings)
