"""The paper's three detectors by name."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from ...errors import UserError, nearest
from ..architecture import Architecture
from ..variants import VARIANTS
from .backbone import DetectionBackbone
from .cascade_rcnn import CascadeMaskRCNN
from .settings import DetectorSettings

# Stochastic depth of Swin Transformer's recipe for models of the same sizes. The paper reports no other values.
DETECTORS: dict[str, dict[str, Any]] = {
    "cascade_mask_rcnn_msg_tiny": {**VARIANTS["msg_tiny"], "drop_path_rate": 0.2},
    "cascade_mask_rcnn_msg_small": {**VARIANTS["msg_small"], "drop_path_rate": 0.2},
    "cascade_mask_rcnn_msg_base": {**VARIANTS["msg_base"], "drop_path_rate": 0.3},
}


def list_detectors() -> list[str]:
    """Return the names that ``create_detector`` accepts."""
    return list(DETECTORS)


def create_detector(name: str, num_classes: int = 80, **kwargs: Any) -> CascadeMaskRCNN:
    """Build one of the paper's detectors with random weights.

    Args:
        name: A name of ``list_detectors``.
        num_classes: Classes, without background.
        kwargs: Arguments of ``MSGTransformer`` that replace the variant's own, and fields of ``DetectorSettings``. So
            any smaller detector can be built, too. The backbone has one stage less than ``strides`` has entries.

    Raises:
        UserError: If the name is unknown, or an argument is out of range or does not fit the others.
    """
    if name not in DETECTORS:
        raise UserError(f"no detector is called {name!r}{nearest(name, DETECTORS)}; there are {', '.join(DETECTORS)}")
    if num_classes < 1:
        raise UserError(f"num_classes={num_classes}: must be at least 1")
    own, others = ({field.name for field in fields(kind)} for kind in (DetectorSettings, Architecture))
    for key in kwargs:
        if key not in own | others:
            raise UserError(f"no detector has an argument {key!r}{nearest(key, own | others)}")
    settings = {key: value for key, value in kwargs.items() if key in own}
    arguments = {**DETECTORS[name], **{key: value for key, value in kwargs.items() if key not in own}}
    backbone, settings = DetectionBackbone(**arguments), DetectorSettings(num_classes=num_classes, **settings)
    expected = tuple(backbone.patch_size * 2**level for level in range(len(backbone.depths) + 1))
    if settings.strides != expected:
        raise UserError(
            f"strides={list(settings.strides)}: with patch_size={backbone.patch_size} and {len(backbone.depths)} stages"
            f" they are {list(expected)}"
        )
    return CascadeMaskRCNN(backbone, settings)
