"""Convolutions of channels-first maps by 1x1 and 3x3 kernels, with bias and ReLU, as native kernels.

Shape letters: B images, C input channels, O output channels, H x W pixels.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from .backend import Operator, kernel

# Sides of the tiles of outputs in Winograd's algorithm.
EXACT_TILE, LARGE_TILE = 2, 4


class MapConv(nn.Cell):
    """A convolution with stride 1 that keeps the sides: (B, C, H, W) -> (B, O, H, W).

    MindSpore's operator on CPU runs a reference loop for kernels above 1x1. The unfolded form needs nine times the
    input's memory. The native kernel of 3x3 convolutions is Winograd's algorithm with tiles of 2 x 2 outputs. It has
    2.25 times fewer multiplications than the definition and about its rounding errors. Its gradients use tiles of 4 x 4
    where these are faster. A NaN or an infinity reaches every output of its tile.

    It needs the native kernels: check ``available``.

    Args:
        kernel_size: 1 or 3; others have no kernel.
    """

    def __init__(self, kernel_size: int):
        super().__init__()
        self.set_tile(EXACT_TILE)
        name = f"conv{kernel_size}x{kernel_size}"
        self.native: Operator = None
        self.native_relu: Operator = None
        if kernel_size in (1, 3):
            grad_x = kernel(f"{name}_grad_x", lambda weight, dy: [dy[0], weight[1], dy[2], dy[3]])
            grad_weight = kernel(f"{name}_grad_weight", lambda x, dy: [dy[1], x[1], kernel_size, kernel_size])
            grad_relu = kernel("conv_relu_grad", lambda y, dy: (y, [y[1]]), 2)

            def bprop(x, weight, bias, settings, out, dout):
                return grad_x(weight, dout), grad_weight(x, dout), dout.sum((0, 2, 3)), ops.zeros_like(settings)

            def relu_bprop(x, weight, bias, settings, out, dout):
                dout, dbias = grad_relu(out, dout)
                return grad_x(weight, dout), grad_weight(x, dout), dbias, ops.zeros_like(settings)

            def shapes(x, weight, *_):
                return [x[0], weight[0], x[2], x[3]]

            self.native = kernel(name, shapes, gradient=bprop)
            self.native_relu = kernel(f"{name}_relu", shapes, gradient=relu_bprop)
        self.available = self.native is not None

    def set_tile(self, side: int) -> None:
        """Choose the tiles of 3x3 convolutions.

        Args:
            side: ``EXACT_TILE``, or ``LARGE_TILE`` for 4 times fewer multiplications than the definition and errors of
                some 2e-6 of the largest output. ReLUs near 0 may then change gradients more than rounding does.
        """
        self.settings = Tensor(np.array([side], np.float32))

    def construct(self, x: Tensor, weight: Tensor, bias: Tensor, relu: bool = False) -> Tensor:
        """Convolve maps with a weight of the same precision.

        In half precision the sums are in single precision and the result is rounded, as in ``MatMul``.

        Args:
            x: (B, C, H, W).
            weight: (O, C, k, k).
            bias: (O,) in single precision.
            relu: apply a ReLU at the end.

        Returns:
            (B, O, H, W).
        """
        run = self.native_relu if relu else self.native
        if x.dtype == ms.float32:
            return run(x, weight, bias, self.settings)
        return run(x.astype(ms.float32), weight.astype(ms.float32), bias, self.settings).astype(x.dtype)
