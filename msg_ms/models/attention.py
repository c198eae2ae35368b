"""Window attention over window tokens and one MSG token, with decoupled position bias."""

from __future__ import annotations

import functools

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn
from mindspore.common.initializer import initializer

from .. import ops
from .layers import Linear, truncated_normal


def relative_position_index(window_size: int) -> np.ndarray:
    """Return the row of the bias table for each pair of window tokens: int64 (w*w, w*w), values in [0, (2w-1)**2).

    The row for a query at (y, x) and a key at (y', x') is (y - y' + w-1) * (2w-1) + (x - x' + w-1).
    """
    y, x = np.divmod(np.arange(window_size**2), window_size)
    rows = y[:, None] - y[None, :] + window_size - 1
    columns = x[:, None] - x[None, :] + window_size - 1
    return rows * (2 * window_size - 1) + columns


def position_bias_index(window_size: int) -> np.ndarray:
    """Return ``relative_position_index`` with the MSG token in front: int32 (N, N), N = w*w + 1.

    Two rows follow the table of (2w-1)**2 offsets. The first is for queries of window tokens and the MSG token's key.
    The second is for the MSG token's query and every key, its own included.
    """
    offsets = (2 * window_size - 1) ** 2
    index = np.full((window_size**2 + 1,) * 2, offsets, np.int32)
    index[1:, 1:] = relative_position_index(window_size)
    index[0] = offsets + 1
    return index


@functools.cache
def position_bias_elements(window_size: int, heads: int) -> Tensor:
    """Return the elements that ``msg_ms.ops.position_bias`` gathers: int32 (heads*N*N,), the same Tensor at every call.

    Element h of row r of the table is r * heads + h. The parameter ``rel_pos_msg`` follows the table.
    """
    index, head = position_bias_index(window_size), np.arange(heads).reshape(-1, 1, 1)
    offsets = (2 * window_size - 1) ** 2
    elements = np.where(index < offsets, index * heads + head, offsets * heads + 2 * head + index - offsets)
    return Tensor(elements.reshape(-1).astype(np.int32))


class WindowAttention(nn.Cell):
    """Multi-head self-attention in each window: (B*R, G, N, C) -> (B*R, G, N, C).

    The parameter ``relative_position_bias_table`` is ((2w-1)**2, heads). The parameter ``rel_pos_msg`` is
    (heads, 2, 1, 1): the bias from window tokens to the MSG token, and from the MSG token to all.

    Args:
        dim: Channels C.
        window_size: Side w of a window in tokens.
        num_heads: Attention heads; they divide ``dim``.
        qkv_bias: Add a bias to queries, keys and values.
        qk_scale: Scale of the queries; None means 1 / sqrt(C / heads).
        attn_drop: Dropout of the attention weights.
        proj_drop: Dropout of the output.
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
        self.bias_index = position_bias_elements(window_size, num_heads)
        self.qkv = Linear(dim, dim * 3, bias=qkv_bias)
        self.scale = qk_scale or (dim // num_heads) ** -0.5
        # The queries are scaled by their weight and bias, which are much smaller than they.
        self.qkv_scale = Tensor(np.repeat(np.array([self.scale, 1, 1], np.float32), dim))
        self.attn_drop = nn.Dropout(p=attn_drop)
        self.proj = Linear(dim, dim)
        self.proj_drop = nn.Dropout(p=proj_drop)
        self.matmul_dtype = ms.float32

    def set_compute_dtype(self, matmul: ms.Type, residual: ms.Type) -> None:
        """Set the type of the matrix products; softmax and position bias stay float32."""
        self.matmul_dtype = ops.composed_dtype(matmul)

    def position_bias(self) -> Tensor:
        """Return the bias of the attention scores, the same for every window: (heads, N, N)."""
        return ops.position_bias(self.relative_position_bias_table, self.rel_pos_msg, self.bias_index)

    def construct(self, x: Tensor) -> Tensor:
        """Return the attention's output, without the residual."""
        _, _, tokens, channels = x.shape
        qkv = self.qkv(x, self.qkv_scale).reshape(-1, tokens, 3 * channels).astype(self.matmul_dtype)
        heads = ops.window_attention(qkv, self.position_bias(), self.attn_drop)
        return self.proj_drop(self.proj(heads)).reshape(x.shape)
