"""The parts of the backbone around the blocks: patch embedding, patch merging, stage.

Shape letters as in ``msg_ms/ops/windows.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
from mindspore import Tensor, nn, ops

from ..ops import ImagePatches, TokenPatches
from .architecture import EMBED_KERNEL, EMBED_PADDING
from .block import MSGBlock
from .layers import LayerNorm, PatchConv
from .windows import StageGeometry, window_partition, window_reverse


class PatchEmbed(nn.Cell):
    """Overlapped 7x7 patch embedding: (B, in_chans, height, width) -> (B, H, W, C), H = height / patch_size."""

    with_messages = False  # whether it puts the MSG tokens in front

    def __init__(self, patch_size: int, in_chans: int, embed_dim: int, patch_norm: bool):
        super().__init__()
        self.proj = PatchConv(in_chans, embed_dim, EMBED_KERNEL, patch_size, EMBED_PADDING)
        self.norm = LayerNorm(embed_dim) if patch_norm else nn.Identity()
        self.patch_norm = patch_norm
        self.patches = ImagePatches(EMBED_KERNEL, patch_size, EMBED_PADDING)

    def construct(self, x: Tensor) -> Tensor:
        """Return the map of patch tokens."""
        return self.norm(self.proj(x))

    def windows(self, x: Tensor, window_size: int, region: int) -> Tensor:
        """Return the patch tokens in windows: (B, in_chans, height, width) -> (B*R, G, w*w, C)."""
        if not (self.patches.available and x.dtype == ms.float32 and self.patch_norm):
            y = window_partition(self.proj.convolve(x), window_size, region, channels_first=True)
            return self.norm(y, self.proj.bias) if self.patch_norm else self.proj.add_bias(y)
        rows = self.proj.matmul_rows(self.patches(x, window_size, region))
        return self.norm(rows, self.proj.bias).reshape(-1, region**2, window_size**2, rows.shape[-1])


class PatchMerging(nn.Cell):
    """Halve both sides and double the channels of patch and MSG tokens with one 3x3 stride-2 convolution.

    (B*R, G, N, C) -> (B*R', G', N, 2*C). Windows keep their size, so a quarter of them remain.
    """

    def __init__(self, dim: int, window_size: int):
        super().__init__()
        self.window_size = window_size
        self.reduction = PatchConv(dim, 2 * dim, kernel_size=3, stride=2, padding=1)
        self.norm = LayerNorm(2 * dim)
        self.patches = TokenPatches()

    def construct(self, x: Tensor, geometry: StageGeometry, next_geometry: StageGeometry) -> Tensor:
        """Return the tokens in the geometry of the next stage."""
        # By position: Cell.to_float passes the arguments of a Cell on as plain tuples.
        (height, width, region), (_, _, next_region) = geometry, next_geometry
        rows, columns = height // self.window_size, width // self.window_size
        half = self.reduction.matmul_dtype != ms.float32  # else Cell.to_float changed the type of x
        if self.patches.available and (half or x.dtype == ms.float32):
            y = self.reduction.matmul_rows(self.patches(x, height, width, self.window_size, region, next_region))
            return self.norm(y, self.reduction.bias).reshape(-1, next_region**2, x.shape[2], y.shape[-1])
        messages = window_reverse(x[:, :, :1], 1, region, rows, columns, channels_first=True)
        patches = window_reverse(x[:, :, 1:], self.window_size, region, height, width, channels_first=True)
        messages = window_partition(self.reduction.convolve(messages), 1, next_region, channels_first=True)
        patches = self.reduction.convolve(patches)
        patches = window_partition(patches, self.window_size, next_region, channels_first=True)
        return self.norm(ops.cat((messages, patches), 2), self.reduction.bias)


class Stage(nn.Cell):
    """Blocks at one resolution, then the patch merging that leads to the next stage, if there is one."""

    def __init__(self, blocks: Sequence[MSGBlock], downsample: PatchMerging | None):
        super().__init__()
        self.blocks = nn.CellList(list(blocks))
        for block in self.blocks:
            # The branches have no parameters. As one shared Cell they are compiled and differentiated once.
            block.attention_branch, block.mlp_branch = blocks[0].attention_branch, blocks[0].mlp_branch
        self.downsample = downsample

    def run_blocks(
        self, x: Tensor, drop_path_scales: tuple[Tensor, ...] | None = None, msg_only: bool = False
    ) -> Tensor:
        """Run the blocks alone, (B*R, G, N, C) -> the same; ``drop_path_scales`` has an entry per block.

        With ``msg_only`` the result has the first tokens of every window only, one or more.
        """
        for i, block in enumerate(self.blocks):
            scale = None if drop_path_scales is None else drop_path_scales[i]
            x = block(x, scale, None, msg_only and i == len(self.blocks) - 1)
        return x

    def merge(self, x: Tensor, geometry: StageGeometry, next_geometry: StageGeometry | None) -> Tensor:
        """Run the patch merging alone, if there is one."""
        return x if self.downsample is None else self.downsample(x, geometry, next_geometry)

    def construct(
        self,
        x: Tensor,
        geometry: StageGeometry,
        next_geometry: StageGeometry | None,
        drop_path_scales: tuple[Tensor, ...] | None = None,
    ) -> Tensor:
        """Return the tokens (B*R, G, N, C) after the blocks and the merging."""
        return self.merge(self.run_blocks(x, drop_path_scales), geometry, next_geometry)
