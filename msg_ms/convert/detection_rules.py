"""The name table between mmdetection's Cascade R-CNN and this package, used in both directions.

The format is that of ``.rules``. The backbone has the classifier's table behind the prefix ``backbone.``. Every other
parameter keeps its name, apart from the parameters of batch normalisation. Values and layouts are the same.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .rules import RULES, Drop, Rule

BACKBONE = "backbone."


def _backbone_rules() -> tuple[Rule | Drop, ...]:
    """Return the classifier's rules with the backbone's prefix on every name, without its norm and head."""
    prefixed = []
    for rule in RULES:
        if not rule.torch.startswith(("norm.", "head.")):
            names = (name for name in ("torch", "ours", "source") if hasattr(rule, name))
            prefixed.append(replace(rule, **{name: BACKBONE + getattr(rule, name) for name in names}))
    return tuple(prefixed)


def _layer(name: str) -> tuple[Rule, Rule]:
    """Return the rules of a convolution or linear layer."""
    return Rule(f"{name}.weight", f"{name}.weight"), Rule(f"{name}.bias", f"{name}.bias")


def _batch_norm(name: str) -> tuple[Rule | Drop, ...]:
    names = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
    counter = Drop(
        f"{name}.num_batches_tracked",
        source=f"{name}.moving_mean",
        reason="a count of training steps, which nothing reads",
        rebuild=lambda mean: np.zeros((), np.int64),
        shape=lambda mean: (),
        compare=False,
    )
    return (*(Rule(f"{name}.{torch}", f"{name}.{ours}") for torch, ours in names.items()), counter)


_BOX_HEAD = "roi_head.bbox_head.{i}"
_MASK_HEAD = "roi_head.mask_head.{i}"

DETECTION_RULES: tuple[Rule | Drop, ...] = (
    *_backbone_rules(),
    Rule("backbone.norm{i}.weight", "backbone.norm{i}.gamma"),
    Rule("backbone.norm{i}.bias", "backbone.norm{i}.beta"),
    *_layer("neck.lateral_convs.{i}.conv"),
    *_layer("neck.fpn_convs.{i}.conv"),
    *_layer("rpn_head.rpn_conv"),
    *_layer("rpn_head.rpn_cls"),
    *_layer("rpn_head.rpn_reg"),
    *_layer(f"{_BOX_HEAD}.fc_cls"),
    *_layer(f"{_BOX_HEAD}.fc_reg"),
    Rule(f"{_BOX_HEAD}.shared_convs.{{j}}.conv.weight", f"{_BOX_HEAD}.shared_convs.{{j}}.conv.weight"),
    *_batch_norm(f"{_BOX_HEAD}.shared_convs.{{j}}.bn"),
    *_layer(f"{_BOX_HEAD}.shared_fcs.{{j}}"),
    *_layer(f"{_MASK_HEAD}.convs.{{j}}.conv"),
    *_layer(f"{_MASK_HEAD}.upsample"),
    *_layer(f"{_MASK_HEAD}.conv_logits"),
)
