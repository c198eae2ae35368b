"""The neck and heads in bfloat16, for inference: layers with packed weights; see ``msg_ms.optimize_for_inference``."""

from __future__ import annotations

from collections.abc import Iterable

from mindspore import Tensor, nn, ops

from ...ops import BFloat16LinearReLU, BFloat16MapConv, WeightPacker
from ..layers import Linear
from .conv import Conv2d, ConvModule, Deconv2x2


class InferenceMapConv(nn.Cell):
    """A ``Conv2d`` or ``ConvModule`` in bfloat16: (B, C, H, W) -> (B, O, H, W).

    Args:
        layer: The layer. Its batch normalisation becomes a part of weight and bias.
        packer: The packer of the weight.
    """

    def __init__(self, layer: Conv2d | ConvModule, packer: WeightPacker):
        super().__init__()
        conv = layer.conv if isinstance(layer, ConvModule) else layer
        weight, bias = conv.weight, conv.no_bias if conv.bias is None else conv.bias
        if isinstance(layer, ConvModule) and layer.bn is not None:
            factor, bias = layer.bn.factor_and_bias()
            weight = weight * factor.reshape(-1, 1, 1, 1)
        if conv.kernel_size == 3:
            weight = packer.conv3x3(Tensor(weight))
        self.weight, self.bias = packer.memory.parameter(weight, "weight"), packer.memory.parameter(bias, "bias")
        self.relu, self.map_conv = layer.relu, BFloat16MapConv(conv.kernel_size)

    def construct(self, x: Tensor, used: Tensor | None = None) -> Tensor:
        """Return the output; all slots of RoIs are computed, used or not."""
        return self.map_conv(x, self.weight, self.bias, self.relu)


class InferenceUpsample(nn.Cell):
    """A ``Deconv2x2`` in bfloat16."""

    def __init__(self, deconv: Deconv2x2, packer: WeightPacker):
        super().__init__()
        weight = deconv.weight.transpose(2, 3, 1, 0).reshape(-1, deconv.weight.shape[0], 1, 1)
        self.weight = packer.memory.parameter(weight, "weight")
        self.bias = packer.memory.parameter(ops.tile(deconv.bias, (4,)), "bias")
        self.out_channels, self.transpose, self.map_conv = deconv.out_channels, deconv.transpose, BFloat16MapConv(1)

    def quarters(self, x: Tensor, relu: bool = False) -> Tensor:
        """Return the outputs as ``Deconv2x2.quarters`` does."""
        y = self.map_conv(x, self.weight, self.bias, relu)
        return y.reshape(-1, self.out_channels, *x.shape[2:])


class InferenceLinear(nn.Cell):
    """A ``Linear`` with a ReLU, in bfloat16: (R, C) -> (R, O)."""

    def __init__(self, linear: Linear, packer: WeightPacker):
        super().__init__()
        self.weight = packer.memory.parameter(packer.linear(linear.weight), "weight")
        self.bias = packer.memory.parameter(linear.bias, "bias")
        self.linear = BFloat16LinearReLU()

    def construct(self, x: Tensor) -> Tensor:
        """Return the output, at least 0."""
        return self.linear(x, self.weight, self.bias)


def packed_convs(layers: Iterable[Conv2d | ConvModule], packer: WeightPacker) -> nn.CellList:
    """Return convolutions in bfloat16."""
    return nn.CellList([InferenceMapConv(layer, packer) for layer in layers])
