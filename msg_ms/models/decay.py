"""Which parameters weight decay applies to."""

from __future__ import annotations

from mindspore import Parameter

NO_DECAY_NAMES = ("absolute_pos_embed",)
NO_DECAY_KEYWORDS = ("relative_position_bias_table", "rel_pos_msg")


def is_no_decay(name: str) -> bool:
    """Whether decay spares a parameter for its name: position bias and position embedding.

    The paper's code means to spare the message tokens too, but names them wrongly; its results come from decayed
    ones, so they decay here.
    """
    return name in NO_DECAY_NAMES or any(word in name for word in NO_DECAY_KEYWORDS)


def has_weight_decay(parameter: Parameter) -> bool:
    """Whether weight decay applies: not to vectors, biases, position bias and position embedding."""
    return parameter.ndim > 1 and not parameter.name.endswith(".bias") and not is_no_decay(parameter.name)
