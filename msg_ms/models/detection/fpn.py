"""Feature pyramid network (Lin et al., CVPR 2017)."""

from __future__ import annotations

from collections.abc import Sequence

from mindspore import Tensor, nn

from ...ops import UpsampleAdd, WeightPacker
from .conv import ConvModule, xavier_uniform
from .inference import packed_convs


class FPN(nn.Cell):
    """Maps of all stages -> as many maps with equal channels, and a fifth at half the size of the last.

    There is no activation. A coarser map is added to the finer one by nearest-neighbour upsampling, and the fifth map
    is every second pixel of the fourth, as in mmdetection.

    Args:
        in_channels: Channels of every stage's map.
        out_channels: Channels C of every output.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int):
        super().__init__()
        self.in_channels, self.out_channels = tuple(in_channels), out_channels
        self.lateral_convs = nn.CellList(
            [ConvModule(c, out_channels, 1, weight_init=xavier_uniform(c, out_channels)) for c in in_channels]
        )
        init = xavier_uniform(9 * out_channels, 9 * out_channels)
        self.fpn_convs = nn.CellList([ConvModule(out_channels, out_channels, 3, weight_init=init) for _ in in_channels])
        self.every_second = nn.MaxPool2d(kernel_size=1, stride=2)
        self.upsample_add = UpsampleAdd()

    def construct(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the pyramid.

        Args:
            maps: A map (B, C_i, H_i, W_i) for every stage, from fine to coarse.

        Returns:
            Maps (B, C, H_i, W_i), and one (B, C, ceil(H_n / 2), ceil(W_n / 2)).
        """
        levels = len(self.lateral_convs)
        merged = self.lateral_convs[levels - 1](maps[levels - 1])
        smallest = self.fpn_convs[levels - 1](merged)
        outputs: tuple[Tensor, ...] = (smallest, self.every_second(smallest))
        for i in range(levels - 2, -1, -1):
            lateral = self.lateral_convs[i](maps[i])
            merged = self.upsample_add(lateral, merged)
            outputs = (self.fpn_convs[i](merged), *outputs)
        return outputs

    def pack_for_inference(self, packer: WeightPacker) -> None:
        """Replace the convolutions by those in bfloat16, see ``msg_ms.optimize_for_inference``."""
        self.lateral_convs = packed_convs(self.lateral_convs, packer)
        self.fpn_convs = packed_convs(self.fpn_convs, packer)

    def flops(self, sizes: Sequence[tuple[int, int]]) -> float:
        """Return the multiply-adds for maps of the given (height, width), without the fifth."""
        channels = zip(sizes, self.in_channels, strict=True)
        return float(sum(h * w * self.out_channels * (c + 9 * self.out_channels) for (h, w), c in channels))
