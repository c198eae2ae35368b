"""Region proposal network's head (Ren et al., NeurIPS 2015)."""

from __future__ import annotations

from collections.abc import Sequence

from mindspore import Tensor, nn
from mindspore.common.initializer import Normal

from ...ops import WeightPacker
from .conv import Conv2d
from .inference import InferenceMapConv


class RPNHead(nn.Cell):
    """A pyramid's maps -> objectness logits and box deltas for A anchors at every pixel.

    Args:
        in_channels: Channels of the maps.
        feat_channels: Channels of the hidden 3x3 convolution.
        num_anchors: Anchors A at every pixel.
    """

    def __init__(self, in_channels: int, feat_channels: int, num_anchors: int = 3):
        super().__init__()
        self.channels = (in_channels, feat_channels, 5 * num_anchors)
        self.rpn_conv = Conv2d(in_channels, feat_channels, 3, weight_init=Normal(0.01), relu=True)
        self.rpn_cls = Conv2d(feat_channels, num_anchors, 1, weight_init=Normal(0.01), output_float32=True)
        self.rpn_reg = Conv2d(feat_channels, 4 * num_anchors, 1, weight_init=Normal(0.01), output_float32=True)

    def construct(self, maps: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return the predictions of every level.

        Args:
            maps: Maps (B, C, H_i, W_i).

        Returns:
            Two tuples, float32: objectness logits (B, A, H_i, W_i), and deltas (B, 4*A, H_i, W_i), in which the four
            deltas of an anchor follow each other.
        """
        logits: tuple[Tensor, ...] = ()
        deltas: tuple[Tensor, ...] = ()
        for level in maps:
            hidden = self.rpn_conv(level)
            logits, deltas = (*logits, self.rpn_cls(hidden)), (*deltas, self.rpn_reg(hidden))
        return logits, deltas

    def pack_for_inference(self, packer: WeightPacker) -> None:
        """Replace the hidden convolution by one in bfloat16, see ``msg_ms.optimize_for_inference``."""
        self.rpn_conv = InferenceMapConv(self.rpn_conv, packer)

    def flops(self, sizes: Sequence[tuple[int, int]]) -> float:
        """Return the multiply-adds for maps of the given (height, width)."""
        inputs, hidden, outputs = self.channels
        return float(sum(h * w * hidden * (9 * inputs + outputs) for h, w in sizes))
