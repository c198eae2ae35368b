"""Multi-head self-attention inside each window."""

from __future__ import annotations

from mindspore import Tensor, ops


def window_attention(qkv: Tensor, bias: Tensor, scale: float, dropout) -> Tensor:
    """softmax(scale * q k^T + bias) v in every window and head: (windows, N, 3*C) -> (windows, N, C).

    ``qkv`` holds queries, keys and values one after the other, each head by head; ``bias`` is (heads, N, N),
    the same for all windows; ``dropout`` is a callable on the attention weights (windows, heads, N, N). Products are
    computed in the precision of ``qkv``, which the result has too; the softmax in the bias's.
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


def position_bias(table: Tensor, message: Tensor, index: Tensor) -> Tensor:
    """The bias of the attention scores, (heads, N, N): ``table`` ((2w-1)**2, heads), ``message`` (heads, 2, 1, 1).

    ``index`` (N*N,) names a row of the table for every pair, and of the two rows behind it: window tokens that look at
    the message token, and the message token's own query.
    """
    tokens, heads = int(index.shape[0] ** 0.5), table.shape[1]
    rows = ops.cat((table, message.reshape(heads, 2).transpose(1, 0)), 0)
    return ops.gather(rows, index, 0).transpose(1, 0).reshape(heads, tokens, tokens)
