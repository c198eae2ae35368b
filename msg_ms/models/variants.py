"""The paper's three models by name."""

from __future__ import annotations

from typing import Any

from ..errors import UserError, nearest
from .features import MSGFeatures
from .msg_transformer import MSGTransformer

# Appendix of the paper and its code's configurations; window 7, regions of 4, 4, 2 and 1 windows a side.
VARIANTS: dict[str, dict[str, Any]] = {
    "msg_tiny": dict(embed_dim=64, depths=(2, 4, 12, 4), num_heads=(2, 4, 8, 16), drop_path_rate=0.1),
    "msg_small": dict(embed_dim=96, depths=(2, 4, 12, 4), num_heads=(3, 6, 12, 24), drop_path_rate=0.3),
    "msg_base": dict(embed_dim=96, depths=(2, 4, 28, 4), num_heads=(3, 6, 12, 24), drop_path_rate=0.5),
}
FEATURE_ARGUMENTS = ("out_indices", "out_norm", "pad")


def list_models() -> list[str]:
    """Names that :func:`create_model` takes."""
    return list(VARIANTS)


def create_model(
    name: str, num_classes: int = 1000, features_only: bool = False, **kwargs: Any
) -> MSGTransformer | MSGFeatures:
    """One of the paper's models with its defaults; ``kwargs`` replace arguments of :class:`MSGTransformer`.

    With ``features_only`` it gives the stages as maps, and takes the arguments of :class:`MSGFeatures` as well.
    """
    if name not in VARIANTS:
        raise UserError(f"no model is called {name!r}{nearest(name, VARIANTS)}; there are {', '.join(VARIANTS)}")
    arguments = {**VARIANTS[name], "num_classes": num_classes, **kwargs}
    if features_only:
        return MSGFeatures(**arguments)
    for argument in FEATURE_ARGUMENTS:
        if argument in kwargs:
            raise UserError(f"{argument}={kwargs[argument]!r}: only with features_only=True")
    return MSGTransformer(**arguments)
