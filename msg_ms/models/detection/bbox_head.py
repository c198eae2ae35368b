"""Box head of a cascade stage: four 3x3 convolutions with batch normalisation and one linear layer."""

from __future__ import annotations

from mindspore import Tensor, nn, ops
from mindspore.common.initializer import Initializer, Normal, initializer

from ...ops import WeightPacker
from ..layers import Linear
from .conv import ConvModule, xavier_uniform
from .inference import InferenceLinear, packed_convs

CONVOLUTIONS = 4


class BBoxHead(nn.Cell):
    """Features of RoIs (R, C, S, S) -> class logits (R, K + 1) and class-specific box deltas (R, 4*K).

    Args:
        in_channels: Channels C of the features.
        conv_channels: Channels of the convolutions.
        fc_channels: Channels of the linear layer.
        roi_size: Side S of the features.
        num_classes: Classes K; background is the last of K + 1 logits.
    """

    def __init__(self, in_channels: int, conv_channels: int, fc_channels: int, roi_size: int, num_classes: int):
        super().__init__()
        self.channels, self.num_classes, self.pixels = (
            (in_channels, conv_channels, fc_channels),
            num_classes,
            roi_size**2,
        )
        inputs = (in_channels, *(conv_channels,) * (CONVOLUTIONS - 1))
        self.shared_convs = nn.CellList([ConvModule(c, conv_channels, 3, batch_norm=True, relu=True) for c in inputs])
        flat = conv_channels * self.pixels
        self.shared_fcs = nn.CellList([_linear(flat, fc_channels, xavier_uniform(flat, fc_channels))])
        self.fc_cls = _linear(fc_channels, num_classes + 1, Normal(0.01), output_float32=True)
        self.fc_reg = _linear(fc_channels, 4 * num_classes, Normal(0.001), output_float32=True)

    def construct(self, features: Tensor, used: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return float32 logits (R, K + 1) and deltas (R, 4*K); ``used`` (R,) as in ``conv.RoINorm``."""
        for conv in self.shared_convs:
            features = conv(features, used)
        hidden = ops.relu(self.shared_fcs[0](features.reshape(features.shape[0], -1)))
        return self.fc_cls(hidden), self.fc_reg(hidden)

    def pack_for_inference(self, packer: WeightPacker) -> None:
        """Replace all but the last layers by those in bfloat16, see ``msg_ms.optimize_for_inference``."""
        self.shared_convs = packed_convs(self.shared_convs, packer)
        self.shared_fcs = nn.CellList([InferenceLinear(layer, packer) for layer in self.shared_fcs])

    def flops(self, rois: int) -> float:
        """Return the multiply-adds for a number of RoIs, normalisation and ReLU included."""
        inputs, conv, fc = self.channels
        convolutions = 9 * conv * (inputs + (CONVOLUTIONS - 1) * conv)
        normalisation = CONVOLUTIONS * conv * (2 + 1)  # scale and shift of the normalisation, and the ReLU
        linear = self.pixels * conv * fc + fc * (5 * self.num_classes + 1)
        return float(rois * (self.pixels * (convolutions + normalisation) + linear))


def _linear(in_features: int, out_features: int, weight_init: Initializer, output_float32: bool = False) -> Linear:
    layer = Linear(in_features, out_features, output_float32=output_float32)
    layer.weight.set_data(initializer(weight_init, layer.weight.shape))
    return layer
