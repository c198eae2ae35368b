"""The models in mindcv's registry, with mindcv's argument names; importing this module registers them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mindcv.models.registry import register_model

from .features import MSGFeatures
from .msg_transformer import MSGTransformer
from .variants import SIZES, VARIANTS, create_model

# mindcv reads the address of pretrained weights here; none are published.
default_cfgs = {
    name: {"url": "", "num_classes": 1000, "first_conv": "patch_embed.proj", "classifier": "head"} for name in VARIANTS
}


def _factory(name: str) -> Callable[..., MSGTransformer | MSGFeatures]:
    """Return the function that mindcv calls for a variant, with mindcv's argument names."""

    def create(
        pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs: Any
    ) -> MSGTransformer | MSGFeatures:
        if "image_size" in kwargs:  # the name that mindcv's Swin and vision transformers use
            kwargs["img_size"] = kwargs.pop("image_size")
        return create_model(name, num_classes, pretrained, in_channels, **kwargs)

    parameters, flops = SIZES[name]
    create.__name__ = create.__qualname__ = name
    create.__doc__ = (
        f"Build MSG-Transformer-{name.removeprefix('msg_')[0].upper()}: {parameters / 1e6:.1f}M parameters, "
        f"{flops / 1e9:.1f} GFLOPs at 224 x 224."
    )
    return create


# mindcv registers a function under its __name__, and lists it in this module's __all__.
for _name in VARIANTS:
    globals()[_name] = register_model(_factory(_name))
