"""The paper's three models by name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mindspore import nn

from ..checkpoint import load_pretrained
from ..errors import UserError, shown
from .architecture import ARGUMENTS, LARGEST
from .arguments import file_path, filtered, known_name, only_known, refuse_pretrained, switch, whole_number
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
OWN_ARGUMENTS = ("num_classes", "pretrained", "in_channels", "checkpoint_path", "features_only")  # for suggestions
IN_CHANNELS = 3

log = logging.getLogger("msg_ms")


def list_models(filter: str | Sequence[str] = "", pretrained: bool = False) -> list[str]:
    """Return the names that ``create_model`` accepts.

    Args:
        filter: Only names that match this pattern, such as ``"*tiny"``, or one of several.
        pretrained: Only models with published weights; there are none.

    Raises:
        UserError: If an argument is of another kind.
    """
    names = filtered(VARIANTS, filter)
    return [] if switch("pretrained", pretrained) else names


def create_model(
    model_name: str,
    num_classes: int = 1000,
    pretrained: bool = False,
    in_channels: int = 3,
    checkpoint_path: str | Path = "",
    features_only: bool = False,
    **kwargs: Any,
) -> MSGTransformer | MSGFeatures:
    """Build one of the paper's models, by mindcv's and timm's conventions.

    Args:
        model_name: A name of ``list_models``.
        num_classes: Number of classes; 0 leaves out the head.
        pretrained: Published weights; there are none, so True is an error.
        in_channels: Channels of the images. timm's ``in_chans``, the paper's name, is accepted as well.
        checkpoint_path: Weights to load, see ``msg_ms.checkpoint.load_pretrained``: they may be for other classes,
            channels, windows or image sizes. Empty for random weights.
        features_only: Return a backbone that produces the stages' feature maps.
        kwargs: Arguments of ``MSGTransformer`` that replace the variant's own. With ``features_only`` also those
            of ``MSGFeatures``. None means the default.

    Raises:
        UserError: If an argument is unknown, out of range or does not fit the others, or the checkpoint does not fit.
    """
    known_name("model", model_name, VARIANTS)
    refuse_pretrained(pretrained, model_name)
    checkpoint = file_path("checkpoint_path", checkpoint_path)
    kwargs = {name: value for name, value in kwargs.items() if value is not None}
    features = switch("features_only", features_only)
    only_known("create_model", kwargs, {*ARGUMENTS, *FEATURE_ARGUMENTS, *OWN_ARGUMENTS})
    arguments = {**VARIANTS[model_name], "num_classes": num_classes, **channels_argument(in_channels, kwargs)}
    if features:
        model = MSGFeatures(**arguments)
    else:
        for argument in FEATURE_ARGUMENTS:
            if argument in kwargs:
                raise UserError(f"{argument}={shown(kwargs[argument])}: only with features_only=True")
        model = MSGTransformer(**arguments)
    load_and_report(model, checkpoint)
    return model


def channels_argument(in_channels: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``kwargs`` with ``in_chans``; raise UserError if both spellings of it are given and differ."""
    in_channels = whole_number("in_channels", in_channels, 1, LARGEST["in_chans"])
    in_chans = whole_number("in_chans", kwargs.get("in_chans", in_channels), 1, LARGEST["in_chans"])
    if in_chans != in_channels and in_channels != IN_CHANNELS:
        raise UserError(f"in_channels={in_channels} and in_chans={in_chans}: two names of one argument; pass one")
    return {**kwargs, "in_chans": in_chans}


def load_and_report(
    model: nn.Cell, checkpoint: Path | None, load: Callable[[nn.Cell, Path], list[str]] = load_pretrained
) -> None:
    """Load a checkpoint into a new model, if there is one, and log a line for each change of its weights."""
    for line in load(model, checkpoint) if checkpoint is not None else ():
        log.info("%s: %s", checkpoint, line)
