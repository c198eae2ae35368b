"""Which parameters of the detector weight decay applies to."""

from __future__ import annotations

from mindspore import Parameter

NO_DECAY_PARTS = ("norm", "absolute_pos_embed", "relative_position_bias_table")


def has_detection_decay(parameter: Parameter) -> bool:
    """Return whether weight decay applies, as in Swin Transformer's detection recipe.

    A parameter whose name contains a word of ``NO_DECAY_PARTS`` does not decay. So the LayerNorms are excluded. Biases,
    the MSG tokens, the MSG token's position bias, and the heads' batch normalisation (``bn``) decay. The
    classifier's groups differ, see ``msg_ms.models.decay``.
    """
    return not any(part in parameter.name for part in NO_DECAY_PARTS)
