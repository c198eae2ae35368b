"""The block that all stages consist of; shape letters as in ``msg_ms/ops/windows.py``."""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from ..framework.compile_time import compile_time_property
from ..ops import AttentionBranch, MlpBranch, Residual, ShuffleMessages
from .attention import WindowAttention
from .layers import LayerNorm, Mlp


class MSGBlock(nn.Cell):
    """Window attention, shuffle of the MSG tokens, MLP; section 3 of the paper: (B*R, G, N, C) -> (B*R, G, N, C).

    Args:
        dim: Channels C.
        num_heads: Attention heads.
        window_size: Side of a window in tokens.
        mlp_ratio: Hidden channels of the MLP, in multiples of ``dim``.
        qkv_bias: Add a bias to queries, keys and values.
        qk_scale: Scale of the queries; None means 1 / sqrt(C / heads).
        drop: Dropout of the branches' outputs and of the MLP's hidden layer.
        attn_drop: Dropout of the attention weights.
        shuffle: Shuffle the MSG tokens within each region after the attention.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: int,
        mlp_ratio: float,
        qkv_bias: bool,
        qk_scale: float | None,
        drop: float,
        attn_drop: float,
        shuffle: bool,
    ):
        super().__init__()
        self.norm1 = LayerNorm(dim)
        self.attn = WindowAttention(dim, window_size, num_heads, qkv_bias, qk_scale, attn_drop, drop)
        self.norm2 = LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop)
        self.shuffle = shuffle
        self.residual, self.shuffle_messages = Residual(), ShuffleMessages()
        self.attention_branch = AttentionBranch(dim, self.attn.scale, shuffle)
        self.mlp_branch = MlpBranch()
        # Two plain flags, so that MindSpore compiles only the path that runs.
        self.native = self.attention_branch.available and drop == attn_drop == 0
        self.single_precision, self.residual_dtype = True, ms.float32

    def set_compute_dtype(self, matmul: ms.Type, residual: ms.Type) -> None:
        """Set the type of the operands of products, and of the output."""
        self.single_precision = matmul == residual == ms.float32
        self.residual_dtype = residual
        self.attention_branch.round_operands(matmul)
        self.mlp_branch.round_operands(matmul)

    def runs_kernels(self, x: Tensor) -> bool:
        """Return whether the native kernels process the tokens ``x``.

        The type of x matters too: Cell.to_float, which mindcv's O3 uses, bypasses set_compute_dtype.
        """
        return self.native and (x.dtype == ms.float32 or not self.single_precision)

    @compile_time_property
    def attention_parameters(self) -> tuple[Parameter | None, ...]:
        """Return the parameters of the attention branch, in the order of ``msg_ms.ops.AttentionBranch``."""
        norm, attn = self.norm1, self.attn
        biases = (attn.relative_position_bias_table, attn.rel_pos_msg)
        qkv, proj = (attn.qkv.weight, attn.qkv.bias), (attn.proj.weight, attn.proj.bias)
        return norm.gamma, norm.beta, *qkv, *biases, *proj

    @compile_time_property
    def mlp_parameters(self) -> tuple[Parameter, ...]:
        """Return the parameters of the MLP branch, in the order of ``msg_ms.ops.MlpBranch``."""
        fc1, fc2 = self.mlp.fc1, self.mlp.fc2
        return self.norm2.gamma, self.norm2.beta, fc1.weight, fc1.bias, fc2.weight, fc2.bias

    def construct(
        self,
        x: Tensor,
        drop_path_scale: Tensor | None = None,
        padding: Tensor | None = None,
        msg_only: bool = False,
    ) -> Tensor:
        """Return the tokens after the block.

        Args:
            x: Tokens (B*R, G, N, C).
            drop_path_scale: Factors (2, B) of each image's two residual branches; None means 1.
            padding: See ``msg_ms.ops.AttentionBranch``; only where the native kernels run.
            msg_only: Return the MSG tokens only, (B*R, G, 1, C), without an MLP for the others.
        """
        if self.runs_kernels(x):
            x = self.attention_branch(x.astype(ms.float32), *self.attention_parameters, drop_path_scale, padding)
            if msg_only:
                x = x[:, :, :1]
            return self.mlp_branch(x, *self.mlp_parameters, drop_path_scale).astype(self.residual_dtype)
        scales = (None, None) if drop_path_scale is None else ops.unstack(drop_path_scale)
        x = self.residual(x, self.attn(self.norm1(x)), scales[0])
        if self.shuffle:
            x = self.shuffle_messages(x)
        if msg_only:
            x = x[:, :, :1]
        return self.residual(x, self.mlp(self.norm2(x)), scales[1])
