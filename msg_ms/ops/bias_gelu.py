"""GELU after the bias of a matrix product."""

from __future__ import annotations

from math import pi

import mindspore as ms
from mindspore import Tensor, mint, nn, ops

from .backend import has_fused

RSQRT_2 = 0.5**0.5
RSQRT_2_PI = (2 * pi) ** -0.5


class _GeluAndCdf(nn.Cell):
    """The exact GELU (Hendrycks and Gimpel, 2016), x times the CDF of the standard normal distribution.

    Its gradient has fewer passes over the tensor than the gradients of its parts. MindSpore's own composed operator
    divides by a constant, and on CPU such a division keeps 16 bytes of indices per element.
    """

    def construct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return gelu(x), and the CDF for the gradient; no gradient flows through the CDF."""
        cdf = ops.erfc(x * -RSQRT_2) * 0.5
        return x * cdf, cdf

    def bprop(self, x: Tensor, out: tuple[Tensor, Tensor], dout: tuple[Tensor, Tensor]) -> tuple[Tensor]:
        """Return the gradient for ``x``."""
        density = ops.exp(x * x * -0.5)
        return (dout[0] * (x * RSQRT_2_PI * density + out[1]),)


class BiasGelu(nn.Cell):
    """The exact GELU after a bias, by MindSpore's fused operator if the device has one."""

    def __init__(self):
        super().__init__()
        self.fused = has_fused("gelu")
        self.gelu_and_cdf = _GeluAndCdf()

    def construct(self, x: Tensor, bias: Tensor, dtype: ms.Type = ms.float32) -> Tensor:
        """Compute gelu(x + bias).

        Args:
            x: (rows, C).
            bias: (C,); the sum is computed in its precision.
            dtype: precision of the GELU and of the result.

        Returns:
            (rows, C) in ``dtype``.
        """
        x = ops.bias_add(x.astype(bias.dtype), bias).astype(dtype)
        if self.fused:
            return mint.nn.functional.gelu(x, approximate="none")
        return self.gelu_and_cdf(x)[0]
