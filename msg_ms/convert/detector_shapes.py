"""Recognise a detector's weights, choose the name table, and check every shape."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from mindspore import nn
from mindspore.nn.utils import no_init_parameters

from ..checkpoint.files import parameters_by_name
from ..checkpoint.types import Arrays, ConversionError
from ..errors import UserError
from ..models.detection.backbone import DetectionBackbone
from ..models.detection.cascade_rcnn import MASK_HEADS, CascadeMaskRCNN
from ..models.detection.settings import DetectorSettings
from ..ops import use_backend
from .detection_rules import BACKBONE, DETECTION_RULES
from .model_shapes import Changes, infer_architecture, variant_name
from .names import check_names_and_shapes
from .rules import RULES, Drop, Rule

# Limits on the sizes that a file's shapes alone may claim.
LARGEST = {"blocks of a stage": 64, "fpn_channels": 4096, "fc_channels": 16384, "box_size": 64, "num_classes": 100_000}
BACKBONE_ARGUMENTS = (
    *("in_chans", "embed_dim", "depths", "num_heads", "window_size", "mlp_ratio", "qkv_bias", "patch_norm"),
    *("shuffle_size", "manip_type"),
)


def is_detector(names: Iterable[str]) -> bool:
    """Return whether parameter names of either side are a detector's, or those of its backbone alone."""
    return any(name.startswith(("neck.", "rpn_head.", "roi_head.", f"{BACKBONE}norm0.")) for name in names)


def rules_for(names: Iterable[str]) -> Sequence[Rule | Drop]:
    """Return the name table for weights of a classifier or of a detector.

    Args:
        names: Names of either side.
    """
    return DETECTION_RULES if is_detector(names) else RULES


def fit_detector(weights: Arrays, cfg: str | None, changes: Changes, seed: int) -> tuple[str, Arrays, list[str]]:
    """Check a detector's weights against the model that their shapes imply.

    The arguments are those of ``msg_ms.convert.model_shapes.fit_weights``; a detector's sizes cannot be changed.

    Args:
        weights: Arrays by our names.
        cfg: Must be None.
        changes: Must be empty.
        seed: Not used.

    Returns:
        The model's name, the weights in the model's order, and no lines.

    Raises:
        UserError: If ``cfg`` or ``changes`` is given.
        ConversionError: If a name or shape differs from the model.
    """
    for name in (*changes.requested(), *(["cfg"] if cfg is not None else [])):
        raise UserError(f"--{name.replace('_', '-')}: only for classifiers; these are the weights of a detector")
    name, model = _build(weights)
    expected = {n: tuple(p.shape) for n, p in parameters_by_name(model.get_parameters()).items()}
    check_names_and_shapes(weights, expected)
    return name, {n: weights[n] for n in expected}, []


class _Backbone(nn.Cell):
    """A backbone whose parameters have the detector's names."""

    def __init__(self, backbone: DetectionBackbone):
        super().__init__()
        self.backbone = backbone


def _build(weights: Arrays) -> tuple[str, nn.Cell]:
    """Return the detector that the shapes imply, without initial values, and its name.

    For the weights of a backbone alone it is a Cell that holds the backbone.
    """
    backbone = {n.removeprefix(BACKBONE): value for n, value in weights.items() if n.startswith(BACKBONE)}
    architecture = infer_architecture(backbone)
    arguments = {key: architecture[key] for key in BACKBONE_ARGUMENTS}
    if len(backbone) == len(weights):
        with no_init_parameters(), use_backend("composed"):
            return f"the backbone of a detector, {variant_name(architecture)}", _Backbone(
                DetectionBackbone(**arguments)
            )
    try:
        head = "roi_head.bbox_head.0"
        channels = weights["neck.lateral_convs.0.conv.weight"].shape[0]
        outputs, fc_channels = weights[f"{head}.fc_cls.weight"].shape
        size = math.isqrt(weights[f"{head}.shared_fcs.0.weight"].shape[1] // channels)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise ConversionError(f"not a Cascade R-CNN: a parameter is missing or has a wrong shape ({error})") from None
    masks = any(name.startswith(MASK_HEADS) for name in weights)
    sizes = dict(num_classes=outputs - 1, fpn_channels=channels, fc_channels=fc_channels, box_size=size)
    for name, value in {**sizes, "blocks of a stage": max(architecture["depths"])}.items():
        if not 1 <= value <= LARGEST[name]:
            raise ConversionError(f"the shapes imply {name}={value}; it must be from 1 to {LARGEST[name]}")
    # Only names and shapes are needed: skip the initial values, and the kernels, which compile for half a minute.
    with no_init_parameters(), use_backend("composed"):
        settings = DetectorSettings(masks=masks, **dict[str, Any](sizes))
        model = CascadeMaskRCNN(DetectionBackbone(**arguments), settings)
    kind = "Cascade Mask R-CNN" if masks else "Cascade R-CNN"
    return f"{kind} with {outputs - 1} classes on {variant_name(architecture)}", model
