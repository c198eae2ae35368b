"""The sum of a residual branch, with what follows it in a block: shuffle of the messages, normalisation."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from .backend import kernel
from .layer_norm import layer_norm
from .windows import shuffle_messages


def residual(x: Tensor, branch: Tensor, bias: Tensor | None, keep: Tensor | None) -> Tensor:
    """x + keep * (branch + bias): (B*R, G, N, C), (B*R*G*N, C), (C,), (B,) -> as ``x``.

    ``keep`` is a factor for every image's branch, None for one; no bias is None. The sum with the bias is computed in
    the bias's precision, everything else in that of ``x``.
    """
    y = branch if bias is None else ops.bias_add(branch.astype(bias.dtype), bias)
    y = y.astype(x.dtype)
    if keep is not None:
        y = y.reshape(keep.shape[0], -1) * keep.reshape(-1, 1).astype(x.dtype)
    return x + y.reshape(x.shape)


class Residual(nn.Cell):
    """:func:`residual` by a native kernel where there is one."""

    def __init__(self):
        super().__init__()
        grad = kernel("residual_grad", lambda dsum, keep: (_rows(dsum), dsum[3:]), 2)

        def bprop(x, branch, bias, keep, out, dout):
            dbranch, dbias = grad(dout, keep)
            return dout, dbranch, dbias, ops.zeros_like(keep)

        self.native = kernel("residual", lambda x, branch, bias, keep: x, gradient=bprop)
        self.one = Tensor(np.ones(1, np.float32))

    def construct(self, x: Tensor, branch: Tensor, bias: Tensor | None, keep: Tensor | None) -> Tensor:
        if self.native is None or bias is None or x.dtype != ms.float32 or branch.dtype != ms.float32:
            return residual(x, branch, bias, keep)
        return self.native(x, branch, bias, self.one if keep is None else keep)


class ResidualNorm(nn.Cell):
    """The residual sum, its messages shuffled if ``shuffle``, and its normalisation; both (B*R, G, N, C).

    The normalisation has the precision of ``x``; arguments as in :func:`residual` and :func:`layer_norm`.
    """

    def __init__(self, shuffle: bool):
        super().__init__()
        self.shuffle = shuffle
        name = "residual_shuffle_norm" if shuffle else "residual_norm"

        def gradient_shapes(out, keep, gamma, dsum, dnormal):
            return out, _rows(out), gamma, gamma, gamma

        grad = kernel(f"{name}_grad", gradient_shapes, 5)

        def bprop(x, branch, bias, keep, gamma, beta, out, dout):
            dx, dbranch, dbias, dgamma, dbeta = grad(out[0], keep, gamma, dout[0], dout[1])
            return dx, dbranch, dbias, ops.zeros_like(keep), dgamma, dbeta

        self.native = kernel(name, lambda x, branch, bias, keep, gamma, beta: (x, x), 2, bprop)
        self.one = Tensor(np.ones(1, np.float32))

    def construct(
        self, x: Tensor, branch: Tensor, bias: Tensor | None, keep: Tensor | None, gamma: Tensor, beta: Tensor
    ) -> tuple[Tensor, Tensor]:
        if self.native is not None and bias is not None and x.dtype == ms.float32 and branch.dtype == ms.float32:
            return self.native(x, branch, bias, self.one if keep is None else keep, gamma, beta)
        total = residual(x, branch, bias, keep)
        if self.shuffle:
            total = shuffle_messages(total)
        return total, layer_norm(total, gamma, beta).astype(x.dtype)


def _rows(shape: list[int]) -> list[int]:
    return [shape[0] * shape[1] * shape[2], shape[3]]
