"""The attention of the MSG tokens, for looking at a trained model; classification does not use it.

Shape letters as in ``msg_ms/ops/windows.py``.
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
from .windows import StageGeometry, stage_geometry, window_reverse

_geometry = constexpr(stage_geometry)


def message_weights(block: MSGBlock, x: Tensor) -> Tensor:
    """Return the attention weights of each window's MSG token.

    The native kernels do not return their weights, so this row of the softmax is computed with MindSpore's operators.

    Args:
        block: The block whose attention is computed.
        x: The block's input (B*R, G, N, C).

    Returns:
        The mean over the heads, float32 (B*R, G, N). Each row sums to 1: first the weight of the MSG token itself,
        then those of its window's tokens row by row.
    """
    attention = block.attn
    regions, windows, tokens, channels = x.shape
    heads = attention.num_heads
    qkv = attention.qkv(block.norm1(x)).astype(ms.float32).reshape(regions * windows, tokens, 3 * channels)
    query = qkv[:, :1, :channels].reshape(-1, heads, 1, channels // heads) * attention.scale
    keys = qkv[:, :, channels : 2 * channels].reshape(-1, tokens, heads, channels // heads).transpose(0, 2, 1, 3)
    # The method WindowAttention.position_bias cannot be used: called from another Cell's graph, MindSpore resolves the
    # ops.position_bias in it to the method itself.
    bias = position_bias(attention.relative_position_bias_table, attention.rel_pos_msg, attention.bias_index)
    scores = (query * keys).sum(-1) + bias[:, 0]
    return ops.softmax(scores, -1).mean(1).reshape(regions, windows, tokens)


class MessageAttention(nn.Cell):
    """Images (B, in_chans, height, width) -> (logits, attention weights of the MSG tokens).

    The logits are the model's. The weights are those of each stage's last block, see ``message_weights``. Use it
    in evaluation mode.

    Args:
        model: A classifier with its own parameters.

    Raises:
        UserError: If the model is optimized for inference.
    """

    def __init__(self, model: MSGTransformer):
        super().__init__(auto_prefix=False)
        require_trainable(model, "the MSG tokens' attention")
        self.model = model

    def construct(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the logits (B, num_classes) and, for each stage, weights (B*R, G, N)."""
        model = self.model
        batch, _, height, width = images.shape
        geometry = _geometry(height, width, model.patch_size, model.window_size, model.shuffle_size)
        x = model.embed(images, geometry[0])
        weights: tuple[Tensor, ...] = ()
        for i, stage in enumerate(model.layers):
            for j, block in enumerate(stage.blocks):
                if j == model.depths[i] - 1:
                    weights = (*weights, message_weights(block, x))
                x = block(x)
            if stage.downsample is not None:
                x = stage.downsample(x, geometry[i], geometry[i + 1])
        features = model.norm(x[:, :, 0]).reshape(batch, -1, model.num_features).mean(1)
        return model.head(features), weights


def attention_maps(weights: np.ndarray, geometry: StageGeometry, window_size: int) -> np.ndarray:
    """Return one stage's attention weights arranged as its map of tokens.

    Args:
        weights: The weights (B*R, G, N) of ``message_weights``.
        geometry: The stage's geometry.
        window_size: Side of a window in tokens.

    Returns:
        The weights of the patch tokens (B, H, W), without the MSG token's own.
    """
    height, width, region = geometry
    return window_reverse(weights[:, :, 1:, None], window_size, region, height, width)[..., 0]
