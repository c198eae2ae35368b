"""The two residual branches of a block, each with its normalisation as one native kernel, and their gradients.

In training a branch keeps what its gradient needs; a gradient outside training has it computed again.
"""

from __future__ import annotations

from math import prod

import numpy as np
from mindspore import Tensor, nn, ops

from .backend import kernel


class AttentionBranch(nn.Cell):
    """x + keep * (window attention of the normalised x, projected), then the shuffle of its messages if ``shuffle``.

    Native only: ``available`` tells. ``x`` and the result are (B*R, G, N, C); ``keep`` (2, B) has a factor for
    each image's two branches, None for one; the rest are parameters of :class:`LayerNorm` and :class:`WindowAttention`.
    """

    def __init__(self, dim: int, scale: float, shuffle: bool):
        super().__init__()
        self.settings = Tensor(np.array([scale, shuffle], np.float32))
        self.no_bias = Tensor(np.zeros(3 * dim, np.float32))
        self.one = Tensor(np.ones((2, 1), np.float32))

        def gradient_shapes(x, gamma, beta, qkv, qkv_bias, table, message, proj, proj_bias, *_):
            return x, gamma, beta, qkv, qkv_bias, table, message, proj, proj_bias

        grad = kernel("attention_branch_grad", gradient_shapes, 9)

        def kept_shapes(x, gamma, beta, qkv, qkv_bias, table, *_):
            heads = table[1]
            return x, [x[0] * x[1], heads, 3, x[2], x[3] // heads], [prod(x[:3]), x[3]]

        def bprop_kept(x, gamma, beta, qkv, qkv_bias, table, message, proj, proj_bias, keep, settings, out, dout):
            found = grad(
                x, gamma, beta, qkv, qkv_bias, table, message, proj, proj_bias, keep, settings, out[1], out[2], dout[0]
            )
            return (*found, ops.zeros_like(keep), ops.zeros_like(settings))

        kept = kernel("attention_branch_kept", kept_shapes, 3, bprop_kept)

        def bprop(x, gamma, beta, qkv, qkv_bias, table, message, proj, proj_bias, keep, settings, out, dout):
            again = kept(x, gamma, beta, qkv, qkv_bias, table, message, proj, proj_bias, keep, settings)
            found = grad(
                x, gamma, beta, qkv, qkv_bias, table, message, proj, proj_bias, keep, settings, again[1], again[2], dout
            )
            return (*found, ops.zeros_like(keep), ops.zeros_like(settings))

        self.kept, self.native = kept, kernel("attention_branch", lambda x, *_: x, gradient=bprop)
        self.available = self.native is not None

    def construct(
        self, x: Tensor, gamma: Tensor, beta: Tensor, qkv: Tensor, qkv_bias: Tensor | None, table: Tensor,
        message: Tensor, proj: Tensor, proj_bias: Tensor, keep: Tensor | None,
    ) -> Tensor:  # fmt: skip
        inputs = (
            x, gamma, beta, qkv, self.no_bias if qkv_bias is None else qkv_bias, table, message, proj, proj_bias,
            self.one if keep is None else keep, self.settings,
        )  # fmt: skip
        return self.kept(*inputs)[0] if self.training else self.native(*inputs)


class MlpBranch(nn.Cell):
    """x + keep * (two linear layers around a GELU, of the normalised x): (B*R, G, N, C) -> the same.

    Native only: ``available`` tells. ``keep`` as in :class:`AttentionBranch`; the rest are the parameters of
    :class:`LayerNorm` and :class:`Mlp`.
    """

    def __init__(self):
        super().__init__()
        self.one = Tensor(np.ones((2, 1), np.float32))

        def gradient_shapes(x, gamma, beta, w1, w2, before, *_):
            return x, gamma, beta, w1, [w1[0]], w2, gamma

        grad = kernel("mlp_branch_grad", gradient_shapes, 7)

        def kept_shapes(x, gamma, beta, w1, *_):
            return x, [prod(x[:3]), w1[0]]

        def bprop_kept(x, gamma, beta, w1, b1, w2, b2, keep, out, dout):
            return (*grad(x, gamma, beta, w1, w2, out[1], keep, dout[0]), ops.zeros_like(keep))

        kept = kernel("mlp_branch_kept", kept_shapes, 2, bprop_kept)

        def bprop(x, gamma, beta, w1, b1, w2, b2, keep, out, dout):
            before = kept(x, gamma, beta, w1, b1, w2, b2, keep)[1]
            return (*grad(x, gamma, beta, w1, w2, before, keep, dout), ops.zeros_like(keep))

        self.kept, self.native = kept, kernel("mlp_branch", lambda x, *_: x, gradient=bprop)
        self.available = self.native is not None

    def construct(
        self, x: Tensor, gamma: Tensor, beta: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor,
        keep: Tensor | None,
    ) -> Tensor:  # fmt: skip
        inputs = (x, gamma, beta, w1, b1, w2, b2, self.one if keep is None else keep)
        return self.kept(*inputs)[0] if self.training else self.native(*inputs)
