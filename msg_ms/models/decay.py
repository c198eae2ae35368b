"""Which parameters weight decay applies to."""

from __future__ import annotations

from mindspore import Parameter

NO_DECAY_NAMES = ("absolute_pos_embed", "relative_position_bias_table", "rel_pos_msg")


def is_no_decay(name: str) -> bool:
    """Return whether a parameter is excluded from weight decay by name: position biases and the position embedding.

    Only the last component of the name counts, so that the model may be a part of a larger one
    (``backbone.absolute_pos_embed``).

    The paper's code also means to exclude the MSG tokens, but misspells their name. Its results come from decayed MSG
    tokens, so they decay here too.
    """
    return name.rsplit(".", 1)[-1] in NO_DECAY_NAMES


def has_weight_decay(parameter: Parameter) -> bool:
    """Return whether weight decay applies: not to vectors, biases, position biases and the position embedding."""
    return parameter.ndim > 1 and not parameter.name.endswith(".bias") and not is_no_decay(parameter.name)
