"""GELU, alone and after the bias of a matrix product."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, ops

RSQRT_2 = 0.5**0.5


def gelu(x: Tensor) -> Tensor:
    """Compute the exact GELU (Hendrycks and Gimpel, 2016), x times the CDF of the standard normal distribution.

    MindSpore's own operator divides by a constant, and on CPU such a division keeps 16 bytes of indices per element.

    Args:
        x: tensor of any shape.

    Returns:
        Tensor of the same shape and precision.
    """
    return x * (ops.erf(x * RSQRT_2) * 0.5 + 0.5)


def bias_gelu(x: Tensor, bias: Tensor, dtype: ms.Type = ms.float32) -> Tensor:
    """Compute gelu(x + bias).

    Args:
        x: (rows, C).
        bias: (C,); the sum is computed in its precision.
        dtype: precision of the GELU and of the result.

    Returns:
        (rows, C) in ``dtype``.
    """
    return gelu(ops.bias_add(x.astype(bias.dtype), bias).astype(dtype))
