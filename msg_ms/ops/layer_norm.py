"""Layer normalization, alone and after the bias of a matrix product."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, mint, nn, ops

from .backend import has_fused, kernel

EPSILON = 1e-5  # PyTorch's; MindSpore's own default is 1e-7


def layer_norm(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """Normalize the last axis in single precision (Ba et al., "Layer normalization", 2016), with epsilon 1e-5.

    Args:
        x: (..., C) in any precision.
        gamma: (C,), factor.
        beta: (C,), offset.

    Returns:
        (..., C) in single precision.
    """
    return ops.LayerNorm(-1, -1, EPSILON)(x.astype(ms.float32), gamma, beta)[0]


class BiasLayerNorm(nn.Cell):
    """Layer normalization of x + bias.

    Args:
        channels: channels C.
    """

    def __init__(self, channels: int):
        super().__init__()
        grad = kernel("layer_norm_grad", lambda x, bias, gamma, dy: (x, bias, bias, bias), 4)

        def bprop(x, bias, gamma, beta, out, dout):
            return grad(x, bias, gamma, dout)

        self.native = kernel("layer_norm", lambda x, bias, gamma, beta: x, gradient=bprop)
        self.no_bias = Tensor(np.zeros(channels, np.float32))
        self.fused = has_fused("layer_norm")

    def construct(self, x: Tensor, bias: Tensor | None, gamma: Tensor, beta: Tensor) -> Tensor:
        """Normalize the rows of x + bias.

        Args:
            x: (rows, C).
            bias: (C,), or None for no bias.
            gamma: (C,), factor.
            beta: (C,), offset.

        Returns:
            (rows, C) in single precision.
        """
        if self.native is not None and x.dtype == ms.float32:
            return self.native(x, self.no_bias if bias is None else bias, gamma, beta)
        if bias is not None:
            x = ops.bias_add(x.astype(bias.dtype), bias)
        if self.fused:
            return mint.nn.functional.layer_norm(x.astype(ms.float32), gamma.shape, gamma, beta, EPSILON)
        return layer_norm(x, gamma, beta)
