"""GELU of a matrix product's result and its bias."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, ops

RSQRT_2 = 0.5**0.5


def gelu(x: Tensor) -> Tensor:
    """x times the normal distribution function of x, exact (erf).

    MindSpore's own divides by a constant, and on CPU a division by one keeps 16 bytes of indices per element.
    """
    return x * (ops.erf(x * RSQRT_2) * 0.5 + 0.5)


def bias_gelu(x: Tensor, bias: Tensor, dtype: ms.Type = ms.float32) -> Tensor:
    """gelu(x + bias): (rows, C), (C,) -> (rows, C) of ``dtype``; the sum is computed in the bias's."""
    return gelu(ops.bias_add(x.astype(bias.dtype), bias).astype(dtype))
