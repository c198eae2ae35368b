"""Layers of the model for layer-wise learning-rate decay, counted as timm counts those of its Swin Transformer.

BEiT's rule (Bao et al., ICLR 2022): the learning rate of layer i of n is the last one's times ``decay ** (n - i)``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from mindspore import Parameter, nn

STEM = ("patch_embed", "msg_tokens", "absolute_pos_embed")
JOINS_PREVIOUS = 99999.0  # timm's and mindcv's mark of a group that is not a layer of its own
_BLOCK = re.compile(r"layers\.(\d+)\.blocks\.(\d+)\.")
_MERGING = re.compile(r"layers\.(\d+)\.downsample\.")


def layer_key(name: str, coarse: bool = False) -> tuple[float, ...]:
    """Return a parameter's place in the order of the layers, for the grouping of timm and mindcv.

    A patch merging belongs to the first block after it, the last norm to the last block, and MSG tokens and position
    embedding to the patch embedding.

    Args:
        name: The parameter's name in the model, without a prefix.
        coarse: Count a stage as one layer.
    """
    if name.split(".")[0] in STEM:
        return (0.0,)
    block, merging = _BLOCK.match(name), _MERGING.match(name)
    if block:
        stage, index = float(block[1]), float(block[2])
        return (1.0, stage) if coarse else (1.0, stage, index)
    if merging:
        # timm's Swin has it at the beginning of the next stage.
        return (1.0, float(merging[1]) + 1) if coarse else (1.0, float(merging[1]) + 1, 0.0)
    if name.split(".")[0] == "norm" and not coarse:
        return (1.0, JOINS_PREVIOUS)
    return (math.inf,)


def layer_of(name: str, depths: Sequence[int]) -> int:
    """Return a parameter's layer: 0 for the patch embedding, 1 to n for the n blocks, n + 1 for head and other parts.

    Args:
        name: The parameter's name in the model, without a prefix.
        depths: Blocks of every stage.
    """
    blocks, key = sum(depths), layer_key(name)
    if key == (0.0,):
        return 0
    if len(key) == 3:
        return min(blocks, sum(depths[: int(key[1])]) + int(key[2]) + 1)
    return blocks if key == (1.0, JOINS_PREVIOUS) else blocks + 1


def layer_scales(names: Iterable[str], depths: Sequence[int], decay: float, prefix: str = "") -> list[float]:
    """Return the factor of each parameter's learning rate.

    Args:
        names: The parameters' names.
        depths: Blocks of every stage.
        decay: Factor from a layer to the one before it.
        prefix: The backbone's prefix in a larger model, such as ``"backbone."``. Other parts have the factor 1.
    """
    last = sum(depths) + 1
    layers = [layer_of(n.removeprefix(prefix), depths) if n.startswith(prefix) else last for n in names]
    return [decay ** (last - layer) for layer in layers]


def lr_scales(model: nn.Cell, parameters: Sequence[Parameter], decay: float) -> list[float] | None:
    """Return the factor of each parameter's learning rate, None if all are 1.

    Args:
        model: A classifier or a detector, whose parts beside the backbone have the factor 1.
        parameters: Its parameters.
        decay: Factor from a layer to the one before it.
    """
    if decay == 1.0:
        return None
    backbone, prefix = (model.backbone, "backbone.") if hasattr(model, "backbone") else (model, "")
    return layer_scales([parameter.name for parameter in parameters], backbone.depths, decay, prefix)
