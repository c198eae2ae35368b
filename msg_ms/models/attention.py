"""Window attention over window tokens and one message token, with decoupled position bias."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn
from mindspore.common.initializer import initializer

from .. import ops
from .layers import Linear, truncated_normal


def relative_position_index(window_size: int) -> np.ndarray:
    """Row of the bias table for each pair of window tokens: int64 (w*w, w*w), values in [0, (2w-1)**2).

    The row for a query at (y, x) and a key at (y', x') is (y - y' + w-1) * (2w-1) + (x - x' + w-1).
    """
    y, x = np.divmod(np.arange(window_size**2), window_size)
    rows = y[:, None] - y[None, :] + window_size - 1
    columns = x[:, None] - x[None, :] + window_size - 1
    return rows * (2 * window_size - 1) + columns


def position_bias_index(window_size: int) -> np.ndarray:
    """As :func:`relative_position_index`, with the message token in front: int32 (N, N), N = w*w + 1.

    Two rows follow the table of (2w-1)**2 offsets: first the one for window tokens that look at the message
    token, then the one for the message token's own query, whatever it looks at (itself included).
    """
    offsets = (2 * window_size - 1) ** 2
    index = np.full((window_size**2 + 1,) * 2, offsets, np.int32)
    index[1:, 1:] = relative_position_index(window_size)
    index[0] = offsets + 1
    return index


class WindowAttention(nn.Cell):
    """Multi-head self-attention in each window: (B*R, G, N, C) -> (B*R, G, N, C).

    ``qk_scale`` replaces 1/sqrt(C / heads). ``relative_position_bias_table`` is ((2w-1)**2, heads);
    ``rel_pos_msg`` is (heads, 2, 1, 1): window tokens to the message token, and the message token to all.
    """

    def __init__(
        self,
        dim: int,
        window_size: int,
        num_heads: int,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ):
        super().__init__()
        self.num_heads = num_heads
        self.relative_position_bias_table = Parameter(
            initializer(truncated_normal(), ((2 * window_size - 1) ** 2, num_heads)),
            name="relative_position_bias_table",
        )
        self.rel_pos_msg = Parameter(initializer(truncated_normal(), (num_heads, 2, 1, 1)), name="rel_pos_msg")
        self.bias_index = Tensor(position_bias_index(window_size).reshape(-1))
        self.qkv = Linear(dim, dim * 3, bias=qkv_bias)
        self.scale = qk_scale or (dim // num_heads) ** -0.5
        self.attn_drop = nn.Dropout(p=attn_drop)
        self.proj = Linear(dim, dim)
        self.proj_drop = nn.Dropout(p=proj_drop)
        self.product_dtype = ms.float32

    def position_bias(self) -> Tensor:
        """The bias added to the attention scores, the same for every window: (heads, N, N)."""
        return ops.position_bias(self.relative_position_bias_table, self.rel_pos_msg, self.bias_index)

    def construct(self, x: Tensor) -> Tensor:
        _, _, tokens, channels = x.shape
        qkv = self.qkv(x).reshape(-1, tokens, 3 * channels).astype(self.product_dtype)
        heads = ops.window_attention(qkv, self.position_bias(), self.scale, self.attn_drop)
        return self.proj_drop(self.proj(heads)).reshape(x.shape)
