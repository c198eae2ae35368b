"""The block that all stages are made of; shape letters as in ``windows.py``."""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, Tensor, nn

from ..ops import AttentionBranch, MlpBranch, residual
from .attention import WindowAttention
from .compile_time import compile_time_property
from .layers import LayerNorm, Mlp
from .windows import shuffle_messages


class MSGBlock(nn.Cell):
    """Window attention, message shuffle, MLP, each with a residual: (B*R, G, N, C) -> (B*R, G, N, C)."""

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
        self.attention_branch = AttentionBranch(dim, self.attn.scale, shuffle)
        self.mlp_branch = MlpBranch()
        self.fused = self.attention_branch.available and drop == attn_drop == 0
        self.single = True  # precision; both are plain flags, so that the compiler reads only the way that is taken

    @compile_time_property
    def attention_parameters(self) -> tuple[Parameter | None, ...]:
        """What the attention branch takes, in its order."""
        attn = self.attn
        return (
            self.norm1.gamma, self.norm1.beta, attn.qkv.weight, attn.qkv.bias, attn.relative_position_bias_table,
            attn.rel_pos_msg, attn.proj.weight, attn.proj.bias,
        )  # fmt: skip

    @compile_time_property
    def mlp_parameters(self) -> tuple[Parameter, ...]:
        """What the MLP branch takes, in its order."""
        fc1, fc2 = self.mlp.fc1, self.mlp.fc2
        return self.norm2.gamma, self.norm2.beta, fc1.weight, fc1.bias, fc2.weight, fc2.bias

    def construct(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """``keep`` (2, B) has a factor for each image's two branches, None for one."""
        # The type as well: who casts the whole model (Cell.to_float, as mindcv's O3 does) sets no flag here.
        if self.fused and self.single and x.dtype == ms.float32:
            x = self.attention_branch(x, *self.attention_parameters, keep)
            return self.mlp_branch(x, *self.mlp_parameters, keep)
        first, second = (None, None) if keep is None else (keep[0], keep[1])
        x = residual(x, self.attn(self.norm1(x)), first)
        if self.shuffle:
            x = shuffle_messages(x)
        return residual(x, self.mlp(self.norm2(x)), second)
