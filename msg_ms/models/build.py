"""The model that a configuration describes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config import ModelConfig
from ..errors import UserError
from .msg_transformer import MSGTransformer


def image_channels(config: ModelConfig, supported: Mapping[int, str]) -> int:
    """Return the channels of the model's images.

    Args:
        config: The section ``MODEL``.
        supported: The numbers of channels that image files can have, with their names.

    Raises:
        UserError: If image files have another number of channels.
    """
    channels = config.msg.in_chans
    if channels not in supported:
        choices = " or ".join(f"{number} ({name})" for number, name in supported.items())
        raise UserError(f"MODEL.MSG.IN_CHANS={channels}: image files are read with {choices} channels")
    return channels


def build_model(config: ModelConfig, img_size: int | tuple[int, int]) -> MSGTransformer:
    """Build the model of the section ``MODEL`` with random weights.

    Args:
        config: The section ``MODEL``.
        img_size: Side of the square images in pixels, or (height, width).

    Raises:
        UserError: If a setting is out of range or does not fit the others.
    """
    return MSGTransformer(img_size=img_size, num_classes=config.num_classes, **backbone_arguments(config))


def backbone_arguments(config: ModelConfig) -> dict[str, Any]:
    """Return the constructor arguments of the section ``MODEL`` that a classifier and a detector's backbone share."""
    msg = config.msg
    return dict(
        patch_size=msg.patch_size,
        in_chans=msg.in_chans,
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
