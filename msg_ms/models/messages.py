"""What the message tokens look at: their attention weights, for looking at a model, beside the path that classifies.

Shape letters as in ``msg_transformer.py``.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops import constexpr

from ..ops import position_bias
from .block import MSGBlock
from .inference import require_trainable
from .msg_transformer import MSGTransformer
from .windows import stage_layouts, window_reverse

_layouts = constexpr(stage_layouts)


def message_weights(block: MSGBlock, x: Tensor) -> Tensor:
    """Attention of each window's message token in ``block``, whose input is ``x``: (B*R, G, N, C) -> (B*R, G, N).

    The message's row of the softmax, itself first, then its window's tokens row by row; the mean over the heads, so
    each row sums to 1. The native kernels keep their weights to themselves: this one row is composed.
    """
    attention = block.attn
    regions, windows, tokens, channels = x.shape
    heads = attention.num_heads
    qkv = attention.qkv(block.norm1(x)).astype(ms.float32).reshape(regions * windows, tokens, 3 * channels)
    query = qkv[:, :1, :channels].reshape(-1, heads, 1, channels // heads) * attention.scale
    keys = qkv[:, :, channels : 2 * channels].reshape(-1, tokens, heads, channels // heads).transpose(0, 2, 1, 3)
    # Not the method of the same name, which a graph that calls it from outside takes for its own callee.
    bias = position_bias(attention.relative_position_bias_table, attention.rel_pos_msg, attention.bias_index)
    scores = (query * keys).sum(-1) + bias[:, 0]
    return ops.softmax(scores, -1).mean(1).reshape(regions, windows, tokens)


class MessageAttention(nn.Cell):
    """Images (B, in_chans, height, width) -> (logits, weights of :func:`message_weights` in each stage's last block).

    The logits are the model's; use it in evaluation mode.
    """

    def __init__(self, model: MSGTransformer):
        super().__init__(auto_prefix=False)
        require_trainable(model, "the messages' attention")
        self.model = model

    def construct(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        model = self.model
        batch, _, height, width = images.shape
        layouts = _layouts(height, width, model.patch_size, model.window_size, model.shuffle_size)
        x, weights = model.embed(images, layouts[0]), ()
        for i, stage in enumerate(model.layers):
            for j, block in enumerate(stage.blocks):
                if j == model.depths[i] - 1:
                    weights = (*weights, message_weights(block, x))
                x = block(x)
            if stage.downsample is not None:
                x = stage.downsample(x, layouts[i], layouts[i + 1])
        features = model.norm(x[:, :, 0]).reshape(batch, -1, model.num_features).mean(1)
        return model.head(features), weights


def attention_maps(weights: np.ndarray, layout: tuple[int, int, int], window_size: int) -> np.ndarray:
    """One stage's weights (B*R, G, N), laid out as its map without the messages' own: (B, H, W)."""
    height, width, region = layout
    return window_reverse(weights[:, :, 1:, None], window_size, region, height, width)[..., 0]
