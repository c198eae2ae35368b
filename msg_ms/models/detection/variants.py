"""The paper's three detectors by name, and the same without masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ...errors import UserError
from ..architecture import ARGUMENTS
from ..arguments import file_path, filtered, known_name, only_known, refuse_pretrained, whole_number
from ..msg_transformer import MOST_CLASSES
from ..variants import OWN_ARGUMENTS, VARIANTS, channels_argument, load_and_report
from .backbone import DetectionBackbone
from .cascade_rcnn import CascadeMaskRCNN
from .pretrained import load_detector
from .settings import DetectorSettings

# Stochastic depth of Swin Transformer's recipe for models of the same sizes. The paper reports no other values.
_BACKBONES: dict[str, dict[str, Any]] = {
    "msg_tiny": {**VARIANTS["msg_tiny"], "drop_path_rate": 0.2},
    "msg_small": {**VARIANTS["msg_small"], "drop_path_rate": 0.2},
    "msg_base": {**VARIANTS["msg_base"], "drop_path_rate": 0.3},
}
DETECTORS: dict[str, dict[str, Any]] = {
    f"{kind}_{name}": {**arguments, "masks": masks}
    for kind, masks in (("cascade_mask_rcnn", True), ("cascade_rcnn", False))
    for name, arguments in _BACKBONES.items()
}


def list_detectors(filter: str | Sequence[str] = "") -> list[str]:
    """Return the names that ``create_detector`` accepts.

    Args:
        filter: Only names that match this pattern, such as ``"*tiny"``, or one of several.

    Raises:
        UserError: If the filter is of another kind.
    """
    return filtered(DETECTORS, filter)


def create_detector(
    model_name: str,
    num_classes: int = 80,
    pretrained: bool = False,
    in_channels: int = 3,
    checkpoint_path: str | Path = "",
    **kwargs: Any,
) -> CascadeMaskRCNN:
    """Build one of the paper's detectors, or one without masks, with the arguments of ``create_model``.

    Args:
        model_name: A name of ``list_detectors``.
        num_classes: Classes, without background.
        pretrained: Published weights; there are none, so True is an error.
        in_channels: Channels of the images. ``in_chans`` is accepted as well.
        checkpoint_path: Weights of such a detector, or of a classifier for the backbone. Empty for random weights.
        kwargs: Arguments of ``MSGTransformer`` that replace the variant's own, and fields of ``DetectorSettings``. So
            any smaller detector can be built, too. The backbone has one stage less than ``strides`` has entries. None
            means the default.

    Raises:
        UserError: If an argument is unknown, out of range or does not fit the others, or the checkpoint does not fit.
    """
    known_name("detector", model_name, DETECTORS)
    refuse_pretrained(pretrained, model_name)
    checkpoint = file_path("checkpoint_path", checkpoint_path)
    num_classes = whole_number("num_classes", num_classes, 1, MOST_CLASSES)
    kwargs = {name: value for name, value in kwargs.items() if value is not None}
    kwargs = {"masks": DETECTORS[model_name]["masks"], **kwargs}
    own = {field.name for field in fields(DetectorSettings)} - {"num_classes"}
    only_known("create_detector", kwargs, {*own, *ARGUMENTS, *OWN_ARGUMENTS} - {"features_only"})
    own_arguments = {key: value for key, value in kwargs.items() if key in own}
    arguments = {key: value for key, value in kwargs.items() if key not in own}
    sizes = {key: value for key, value in DETECTORS[model_name].items() if key not in own}
    settings = DetectorSettings(num_classes=num_classes, **own_arguments)
    backbone = DetectionBackbone(**{**sizes, **channels_argument(in_channels, arguments)})
    expected = tuple(backbone.patch_size * 2**level for level in range(len(backbone.depths) + 1))
    if settings.strides != expected:
        raise UserError(
            f"strides={list(settings.strides)}: with patch_size={backbone.patch_size} and {len(backbone.depths)} stages"
            f" they are {list(expected)}"
        )
    detector = CascadeMaskRCNN(backbone, settings)
    load_and_report(detector, checkpoint, load_detector)
    return detector
