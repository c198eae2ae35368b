"""The models in mindcv's registry, under mindcv's argument names; importing this file registers them."""

from __future__ import annotations

from typing import Any

from mindcv.models.registry import register_model

from ..errors import UserError
from .features import MSGFeatures
from .msg_transformer import MSGTransformer
from .variants import VARIANTS, create_model

# Where mindcv looks for the address of trained weights; there are none yet.
default_cfgs = {
    name: {"url": "", "num_classes": 1000, "first_conv": "patch_embed.proj", "classifier": "head"} for name in VARIANTS
}


def _create(
    name: str, pretrained: bool, num_classes: int, in_channels: int, kwargs: dict[str, Any]
) -> MSGTransformer | MSGFeatures:
    if pretrained:
        raise UserError(f"pretrained=True: no trained weights of {name} are published; load a checkpoint instead")
    if "image_size" in kwargs:  # as mindcv's Swin and vision transformers call it
        kwargs["img_size"] = kwargs.pop("image_size")
    return create_model(name, num_classes, in_chans=in_channels, **kwargs)


# mindcv registers a model under the name of a function, and calls it with these names.
@register_model
def msg_tiny(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs: Any) -> MSGTransformer:
    """MSG-Transformer-T: 25.1M parameters, 3.8 GFLOPs."""
    return _create("msg_tiny", pretrained, num_classes, in_channels, kwargs)


@register_model
def msg_small(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs: Any) -> MSGTransformer:
    """MSG-Transformer-S: 56.0M parameters, 8.5 GFLOPs."""
    return _create("msg_small", pretrained, num_classes, in_channels, kwargs)


@register_model
def msg_base(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs: Any) -> MSGTransformer:
    """MSG-Transformer-B: 84.4M parameters, 14.3 GFLOPs."""
    return _create("msg_base", pretrained, num_classes, in_channels, kwargs)
