"""A block's two residual branches, each with its normalization as one native kernel, and their gradients.

In training mode a branch saves the tensors that its gradient needs. Outside training mode the gradient recomputes them.
Inputs and outputs are in single precision. ``round_operands`` chooses the type of the operands of the products.
Shape letters as in ``windows.py``.
"""

from __future__ import annotations

from math import prod

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from .backend import Operator, kernel
from .matmul import SUFFIXES


class _Branch(nn.Cell):
    """The choice of a branch's kernels: ``native``, and ``native_train``, which saves tensors for the gradient."""

    def __init__(self):
        super().__init__()
        self.no_drop_path = Tensor(np.ones((2, 1), np.float32))
        self.dtype: ms.Type = ms.float32
        self.native, self.native_train = self._kernels(ms.float32)
        self.available = self.native is not None

    def round_operands(self, dtype: ms.Type) -> None:
        """Choose the type to which the operands of products with a weight are rounded.

        Args:
            dtype: float32, float16 or bfloat16.
        """
        if dtype != self.dtype:
            self.dtype = dtype
            self.native, self.native_train = self._kernels(dtype)

    def _kernels(self, dtype: ms.Type) -> tuple[Operator, Operator]:
        """Return the two kernels that round operands to a type."""
        raise NotImplementedError


class AttentionBranch(_Branch):
    """The attention branch of a block: x + drop_path_scale * proj(attention(LayerNorm(x))), then the shuffle.

    It needs the native kernels: check ``available``.

    Args:
        dim: channels C.
        scale: factor of the attention scores.
        shuffle: whether to shuffle the MSG tokens of each region afterwards (the paper, section 3.3).
    """

    def __init__(self, dim: int, scale: float, shuffle: bool):
        super().__init__()
        self.settings = Tensor(np.array([scale, shuffle], np.float32))
        self.no_bias = Tensor(np.zeros(3 * dim, np.float32))

    def _kernels(self, dtype: ms.Type) -> tuple[Operator, Operator]:
        suffix = SUFFIXES[dtype]

        def gradient_shapes(x, gamma, beta, qkv, qkv_bias, table, msg_bias, proj, proj_bias, *_):
            return x, gamma, beta, qkv, qkv_bias, table, msg_bias, proj, proj_bias

        grad = kernel(f"attention_branch_grad{suffix}", gradient_shapes, 9)

        def train_shapes(x, gamma, beta, qkv, qkv_bias, table, *_):
            heads = table[1]
            saved_qkv, saved_heads = [x[0] * x[1], heads, 3, x[2], x[3] // heads], [prod(x[:3]), x[3]]
            return x, saved_qkv, saved_heads

        def train_bprop(x, gamma, beta, qkv, qkv_bias, table, msg_bias, proj, proj_bias, scales, settings, out, dout):
            inputs = (x, gamma, beta, qkv, qkv_bias, table, msg_bias, proj, proj_bias, scales, settings)
            gradients = grad(*inputs, out[1], out[2], dout[0])
            return (*gradients, ops.zeros_like(scales), ops.zeros_like(settings))

        train = kernel(f"attention_branch_train{suffix}", train_shapes, 3, train_bprop)

        def bprop(x, gamma, beta, qkv, qkv_bias, table, msg_bias, proj, proj_bias, scales, settings, out, dout):
            inputs = (x, gamma, beta, qkv, qkv_bias, table, msg_bias, proj, proj_bias, scales, settings)
            recomputed = train(*inputs)
            gradients = grad(*inputs, recomputed[1], recomputed[2], dout)
            return (*gradients, ops.zeros_like(scales), ops.zeros_like(settings))

        return kernel(f"attention_branch{suffix}", lambda x, *_: x, gradient=bprop), train

    def construct(
        self,
        x: Tensor,
        gamma: Tensor,
        beta: Tensor,
        qkv: Tensor,
        qkv_bias: Tensor | None,
        table: Tensor,
        msg_bias: Tensor,
        proj: Tensor,
        proj_bias: Tensor,
        drop_path_scale: Tensor | None,
        padding: Tensor | None = None,
    ) -> Tensor:
        """Run the branch.

        Args:
            x: (B*R, G, N, C).
            gamma: (C,), of the normalization.
            beta: (C,), of the normalization.
            qkv: (3*C, C), weight of queries, keys and values.
            qkv_bias: (3*C,) or None.
            table: ((2w-1)**2, heads), relative position bias.
            msg_bias: (heads, 2, 1, 1), position bias of the MSG token.
            proj: (C, C), weight of the projection.
            proj_bias: (C,).
            drop_path_scale: (2, B), a factor for each image's two branches, of which row 0 is used; None for 1.
            padding: (5,), for windows in row order with G = 1: height and width of the map in patch tokens, rows and
                columns of windows, and the side of a shuffle region in windows. Patches outside the map count as zeros
                after the normalization. Windows outside the grid send zeros in the shuffle. None: nothing is padded.

        Returns:
            (B*R, G, N, C).
        """
        bias = self.no_bias if qkv_bias is None else qkv_bias
        scales = self.no_drop_path if drop_path_scale is None else drop_path_scale
        settings = self.settings if padding is None else ops.cat((self.settings, padding))
        inputs = (x, gamma, beta, qkv, bias, table, msg_bias, proj, proj_bias, scales, settings)
        return self.native_train(*inputs)[0] if self.training else self.native(*inputs)


class MlpBranch(_Branch):
    """The MLP branch of a block: x + drop_path_scale * (gelu(LayerNorm(x) w1^T + b1) w2^T + b2).

    It needs the native kernels: check ``available``.
    """

    def _kernels(self, dtype: ms.Type) -> tuple[Operator, Operator]:
        suffix = SUFFIXES[dtype]
        halves = 2 if dtype == ms.bfloat16 else 1  # numbers in an entry of the saved tensor

        def gradient_shapes(x, gamma, beta, w1, w2, *_):
            return x, gamma, beta, w1, [w1[0]], w2, gamma

        grad = kernel(f"mlp_branch_grad{suffix}", gradient_shapes, 7)

        def train_shapes(x, gamma, beta, w1, *_):
            saved = [prod(x[:3]), -(-w1[0] // halves)]
            return x, saved

        def train_bprop(x, gamma, beta, w1, b1, w2, b2, scales, out, dout):
            return (*grad(x, gamma, beta, w1, w2, out[1], scales, dout[0]), ops.zeros_like(scales))

        train = kernel(f"mlp_branch_train{suffix}", train_shapes, 2, train_bprop)

        def bprop(x, gamma, beta, w1, b1, w2, b2, scales, out, dout):
            recomputed = train(x, gamma, beta, w1, b1, w2, b2, scales)[1]
            return (*grad(x, gamma, beta, w1, w2, recomputed, scales, dout), ops.zeros_like(scales))

        return kernel(f"mlp_branch{suffix}", lambda x, *_: x, gradient=bprop), train

    def construct(
        self,
        x: Tensor,
        gamma: Tensor,
        beta: Tensor,
        w1: Tensor,
        b1: Tensor,
        w2: Tensor,
        b2: Tensor,
        drop_path_scale: Tensor | None,
    ) -> Tensor:
        """Run the branch.

        Args:
            x: (B*R, G, N, C).
            gamma: (C,), of the normalization.
            beta: (C,), of the normalization.
            w1: (hidden, C).
            b1: (hidden,).
            w2: (C, hidden).
            b2: (C,).
            drop_path_scale: (2, B), a factor for each image's two branches, of which row 1 is used; None for 1.

        Returns:
            (B*R, G, N, C).
        """
        scales = self.no_drop_path if drop_path_scale is None else drop_path_scale
        inputs = (x, gamma, beta, w1, b1, w2, b2, scales)
        return self.native_train(*inputs)[0] if self.training else self.native(*inputs)
