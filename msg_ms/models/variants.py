"""The paper's three models by name, here and in mindcv's registry."""

from __future__ import annotations

from typing import Any

from mindcv.models.registry import register_model

from ..errors import UserError, nearest
from .msg_transformer import MSGTransformer

# Appendix of the paper and its code's configurations; window 7, regions of 4, 4, 2 and 1 windows a side.
VARIANTS: dict[str, dict[str, Any]] = {
    "msg_tiny": dict(embed_dim=64, depths=(2, 4, 12, 4), num_heads=(2, 4, 8, 16), drop_path_rate=0.1),
    "msg_small": dict(embed_dim=96, depths=(2, 4, 12, 4), num_heads=(3, 6, 12, 24), drop_path_rate=0.3),
    "msg_base": dict(embed_dim=96, depths=(2, 4, 28, 4), num_heads=(3, 6, 12, 24), drop_path_rate=0.5),
}


def list_models() -> list[str]:
    """Names that :func:`create_model` takes."""
    return list(VARIANTS)


def create_model(name: str, num_classes: int = 1000, **kwargs: Any) -> MSGTransformer:
    """One of the paper's models with its defaults; ``kwargs`` replace arguments of :class:`MSGTransformer`."""
    if name not in VARIANTS:
        raise UserError(f"no model is called {name!r}{nearest(name, VARIANTS)}; there are {', '.join(VARIANTS)}")
    return MSGTransformer(**{**VARIANTS[name], "num_classes": num_classes, **kwargs})


def _create_for_mindcv(name: str, pretrained: bool, num_classes: int, in_channels: int, kwargs: dict) -> MSGTransformer:
    if pretrained:
        raise UserError(f"pretrained=True: no trained weights of {name} are published; load a checkpoint instead")
    return create_model(name, num_classes, in_chans=in_channels, **kwargs)


# mindcv registers a model under the name of a function, and passes its own argument names.
@register_model
def msg_tiny(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs: Any) -> MSGTransformer:
    """MSG-Transformer-T: 25.1M parameters, 3.8 GFLOPs."""
    return _create_for_mindcv("msg_tiny", pretrained, num_classes, in_channels, kwargs)


@register_model
def msg_small(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs: Any) -> MSGTransformer:
    """MSG-Transformer-S: 56.0M parameters, 8.5 GFLOPs."""
    return _create_for_mindcv("msg_small", pretrained, num_classes, in_channels, kwargs)


@register_model
def msg_base(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs: Any) -> MSGTransformer:
    """MSG-Transformer-B: 84.4M parameters, 14.3 GFLOPs."""
    return _create_for_mindcv("msg_base", pretrained, num_classes, in_channels, kwargs)
