"""Multi-head self-attention inside each window, and its position bias."""

from __future__ import annotations

from collections.abc import Callable

from mindspore import Tensor, ops


def window_attention(qkv: Tensor, bias: Tensor, scale: float, dropout: Callable[[Tensor], Tensor]) -> Tensor:
    """Compute softmax(scale * q k^T + bias) v in every window and head (Vaswani et al., 2017).

    Args:
        qkv: (windows, N, 3*C), queries, keys and values one after the other, each head by head.
        bias: (heads, N, N), the same for all windows; the softmax is computed in its precision.
        scale: factor of the scores, usually (C / heads)**-0.5.
        dropout: applied to the attention weights (windows, heads, N, N).

    Returns:
        (windows, N, C) in the precision of ``qkv``, in which the products are computed.
    """
    windows, tokens, channels = qkv.shape
    channels = channels // 3
    heads = bias.shape[0]

    def by_head(x):
        return x.reshape(windows, tokens, heads, channels // heads).transpose(0, 2, 1, 3)

    # Splitting the flat matrix first keeps the transposes four-dimensional: half the time of one transpose
    # to (3, windows, heads, N, d) and three slices of it.
    q, k, v = ops.split(qkv.reshape(-1, 3 * channels), channels, 1)
    scores = ops.BatchMatMul(transpose_b=True)(by_head(q) * scale, by_head(k)).astype(bias.dtype)
    # As rows with a bias each: on CPU a broadcast sum keeps 16 bytes of indices per element.
    scores = ops.bias_add(scores.reshape(windows, -1), bias.reshape(-1)).reshape(windows, heads, tokens, tokens)
    weights = dropout(ops.softmax(scores, -1)).astype(qkv.dtype)
    return ops.BatchMatMul()(weights, by_head(v)).transpose(0, 2, 1, 3).reshape(windows, tokens, channels)


def position_bias(table: Tensor, msg_bias: Tensor, index: Tensor) -> Tensor:
    """Gather the position bias of the attention scores from its parameters.

    Args:
        table: ((2w-1)**2, heads), bias of two patch tokens by their relative position.
        msg_bias: (heads, 2, 1, 1), first the bias of patch tokens that attend to the MSG token, then that of the MSG
            token's own query.
        index: (N*N,), for each pair of tokens its row in the table, or one of two further rows for ``msg_bias``.

    Returns:
        (heads, N, N).
    """
    tokens, heads = int(index.shape[0] ** 0.5), table.shape[1]
    rows = ops.cat((table, msg_bias.reshape(heads, 2).transpose(1, 0)), 0)
    return ops.gather(rows, index, 0).transpose(1, 0).reshape(heads, tokens, tokens)
