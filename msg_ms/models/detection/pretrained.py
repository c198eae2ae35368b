"""Weights for fine-tuning a detector: those of a classifier, or of a detector for other classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mindspore import Parameter

from ...checkpoint import (
    adapt_weights,
    load_parameters,
    load_pretrained,
    parameters_by_name,
    read_checkpoint,
    select_prefix,
)
from ...errors import shorten
from .cascade_rcnn import MASK_HEADS, CascadeMaskRCNN

CLASS_LAYERS = ("fc_cls", "fc_reg", "conv_logits")  # layers with outputs for every class


def load_detector(model: CascadeMaskRCNN, path: Path) -> list[str]:
    """Set the weights from a classifier's checkpoint (the backbone's) or a detector's.

    Args:
        model: The detector.
        path: A checkpoint of this package.

    Returns:
        A line for each change.

    Raises:
        UserError: If the file is unreadable, or names or shapes differ.
    """
    arrays = select_prefix(read_checkpoint(path)[0], "")
    if not any(name.startswith("roi_head.") for name in arrays):
        return load_pretrained(model.backbone, path, prefix="backbone.")
    targets = parameters_by_name(model.get_parameters())
    if model.settings.masks and not any(name.startswith(MASK_HEADS) for name in arrays):
        targets = {name: parameter for name, parameter in targets.items() if not name.startswith(MASK_HEADS)}
        notes = ["the mask heads keep their initial values: the file is that of a detector without masks"]
    else:
        arrays, notes = model.own_weights(arrays, path)
    arrays, lines = adapt_weights(arrays, {name: tuple(p.shape) for name, p in targets.items()})
    other = [name for name in arrays if name in targets and _is_of_classes(name, arrays[name], targets[name])]
    if other:
        lines.append(f"layers for other classes keep their initial values: {shorten(other)}")
    load_parameters(
        {name: parameter for name, parameter in targets.items() if name not in other},
        {name: values for name, values in arrays.items() if name not in other},
        path,
    )
    return [*notes, *lines]


def _is_of_classes(name: str, values: np.ndarray, parameter: Parameter) -> bool:
    """Return whether a parameter's shape depends on the number of classes, and the values are for another number."""
    return name.split(".")[-2] in CLASS_LAYERS and values.shape != tuple(parameter.shape)
