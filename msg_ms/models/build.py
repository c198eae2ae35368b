"""The model that a configuration describes."""

from __future__ import annotations

from ..config import ModelConfig
from .msg_transformer import MSGTransformer


def build_model(config: ModelConfig, img_size: int | tuple[int, int]) -> MSGTransformer:
    """The MSG-Transformer of the section ``MODEL`` for images of ``img_size`` pixels: a square's side, or two sides."""
    msg = config.msg
    return MSGTransformer(
        img_size=img_size,
        patch_size=msg.patch_size,
        in_chans=msg.in_chans,
        num_classes=config.num_classes,
        embed_dim=msg.embed_dim,
        depths=msg.depths,
        num_heads=msg.num_heads,
        window_size=msg.window_size,
        mlp_ratio=msg.mlp_ratio,
        qkv_bias=msg.qkv_bias,
        qk_scale=msg.qk_scale,
        drop_rate=config.drop_rate,
        drop_path_rate=config.drop_path_rate,
        ape=msg.ape,
        patch_norm=msg.patch_norm,
        shuffle_size=msg.shuf_size,
        manip_type=msg.manip_type,
    )
