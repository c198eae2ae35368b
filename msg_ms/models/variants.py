"""The paper's three models by name."""

from __future__ import annotations

from typing import Any

from ..errors import UserError, nearest
from .features import MSGFeatures
from .msg_transformer import MSGTransformer

# From the paper's appendix and the configurations of its code; windows of 7 x 7 tokens, shuffle regions of 4, 4, 2 and
# 1 windows a side.
VARIANTS: dict[str, dict[str, Any]] = {
    "msg_tiny": dict(embed_dim=64, depths=(2, 4, 12, 4), num_heads=(2, 4, 8, 16), drop_path_rate=0.1),
    "msg_small": dict(embed_dim=96, depths=(2, 4, 12, 4), num_heads=(3, 6, 12, 24), drop_path_rate=0.3),
    "msg_base": dict(embed_dim=96, depths=(2, 4, 28, 4), num_heads=(3, 6, 12, 24), drop_path_rate=0.5),
}
# Parameters and multiply-adds with 1000 classes at 224 x 224.
SIZES: dict[str, tuple[int, int]] = {
    "msg_tiny": (25_086_116, 3_824_520_192),
    "msg_small": (55_968_514, 8_464_716_288),
    "msg_base": (84_392_770, 14_252_364_288),
}
FEATURE_ARGUMENTS = ("out_indices", "out_norm", "pad")


def list_models() -> list[str]:
    """Return the names that ``create_model`` accepts."""
    return list(VARIANTS)


def create_model(
    name: str, num_classes: int = 1000, features_only: bool = False, **kwargs: Any
) -> MSGTransformer | MSGFeatures:
    """Build one of the paper's models with random weights.

    Args:
        name: A name of ``list_models``.
        num_classes: Number of classes; 0 leaves out the head.
        features_only: Return a backbone that produces the stages' feature maps.
        kwargs: Arguments of ``MSGTransformer`` that replace the variant's own. With ``features_only`` also those
            of ``MSGFeatures``.

    Raises:
        UserError: If the name is unknown, or an argument is out of range or does not fit the others.
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
