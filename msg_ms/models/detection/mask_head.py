"""Mask head of a cascade stage (He et al., ICCV 2017): four convolutions and an upsampling by two."""

from __future__ import annotations

from mindspore import Tensor, nn

from ...ops import WeightPacker
from .conv import Conv2d, ConvModule, Deconv2x2, join_quarters
from .inference import InferenceMapConv, InferenceUpsample, packed_convs

CONVOLUTIONS = 4


class MaskHead(nn.Cell):
    """Features of RoIs (R, C, S, S) -> mask logits of every class (R, K, 2*S, 2*S).

    Args:
        in_channels: Channels C of the features.
        conv_channels: Channels of the convolutions.
        num_classes: Classes K.
    """

    def __init__(self, in_channels: int, conv_channels: int, num_classes: int):
        super().__init__()
        self.channels, self.num_classes = (in_channels, conv_channels), num_classes
        inputs = (in_channels, *(conv_channels,) * (CONVOLUTIONS - 1))
        self.convs = nn.CellList([ConvModule(c, conv_channels, 3, relu=True) for c in inputs])
        self.upsample = Deconv2x2(conv_channels, conv_channels)
        self.conv_logits = Conv2d(conv_channels, num_classes, 1, output_float32=True)

    def construct(self, features: Tensor) -> Tensor:
        """Return float32 logits (R, K, 2*S, 2*S)."""
        for conv in self.convs:
            features = conv(features)
        # The last convolution sees single pixels, so that only its outputs need to be put in order.
        return join_quarters(self.conv_logits(self.upsample.quarters(features, relu=True)), self.upsample.transpose)

    def pack_for_inference(self, packer: WeightPacker) -> None:
        """Replace the layers by those in bfloat16, see ``msg_ms.optimize_for_inference``."""
        self.convs = packed_convs(self.convs, packer)
        self.upsample = InferenceUpsample(self.upsample, packer)
        self.conv_logits = InferenceMapConv(self.conv_logits, packer)

    def flops(self, rois: int, roi_size: int) -> float:
        """Return the multiply-adds for RoIs of ``roi_size`` x ``roi_size`` pixels, ReLU included."""
        inputs, conv = self.channels
        convolutions = 9 * conv * (inputs + (CONVOLUTIONS - 1) * conv) + CONVOLUTIONS * conv
        upsampling = 4 * conv * (conv + 1 + self.num_classes)
        return float(rois * roi_size**2 * (convolutions + upsampling))
