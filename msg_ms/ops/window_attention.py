"""Multi-head self-attention inside each window, and its position bias."""

from __future__ import annotations

from collections.abc import Callable

from mindspore import Tensor, ops


def window_attention(qkv: Tensor, bias: Tensor, dropout: Callable[[Tensor], Tensor]) -> Tensor:
    """Compute softmax(q k^T + bias) v in every window and head (Vaswani et al., 2017).

    Args:
        qkv: (windows, N, 3*C), queries, keys and values one after the other, each head by head. The queries are
            multiplied by the factor of the scores, usually (C / heads)**-0.5.
        bias: (heads, N, N), the same for all windows; the softmax is computed in its precision.
        dropout: applied to the attention weights (windows, heads, N, N).

    Returns:
        (windows, N, C) in the precision of ``qkv``, in which the products are computed.
    """
    windows, tokens, channels = qkv.shape
    channels = channels // 3
    heads = bias.shape[0]
    # One transpose of all three; each is then a block of memory.
    parts = qkv.reshape(windows, tokens, 3, heads, channels // heads).transpose(2, 0, 3, 1, 4)
    q, k, v = [part.reshape(windows, heads, tokens, channels // heads) for part in ops.split(parts, 1, 0)]
    scores = ops.BatchMatMul(transpose_b=True)(q, k).astype(bias.dtype)
    # As rows with a bias each: on CPU a broadcast sum keeps 16 bytes of indices per element.
    scores = ops.bias_add(scores.reshape(windows, -1), bias.reshape(-1)).reshape(windows, heads, tokens, tokens)
    weights = dropout(ops.softmax(scores, -1)).astype(qkv.dtype)
    return ops.BatchMatMul()(weights, v).transpose(0, 2, 1, 3).reshape(windows, tokens, channels)


def position_bias(table: Tensor, msg_bias: Tensor, index: Tensor) -> Tensor:
    """Gather the position bias of the attention scores from its parameters.

    Args:
        table: ((2w-1)**2, heads), bias of two patch tokens by their relative position.
        msg_bias: (heads, 2, 1, 1), first the bias of patch tokens that attend to the MSG token, then that of the MSG
            token's own query.
        index: (heads*N*N,), for each head and pair of tokens the element of the table, or of ``msg_bias`` after it.

    Returns:
        (heads, N, N).
    """
    heads = table.shape[1]
    tokens = int((index.shape[0] // heads) ** 0.5)
    # By element and not by row, so that nothing is transposed.
    return ops.gather(ops.cat((table.reshape(-1), msg_bias.reshape(-1)), 0), index, 0).reshape(heads, tokens, tokens)
