"""MSG-Transformer as a detection backbone: images of any size, with padding only inside the attention.

Shape letters as in ``msg_ms/ops/windows.py``. A stage's patches H x W need not fill its windows. The grid of MSG tokens
has ceil(H / w) x ceil(W / w) windows, and need not fill its shuffle regions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops
from mindspore.ops import constexpr

from ...errors import UserError
from ...ops import residual
from ..architecture import EMBED_KERNEL, Architecture
from ..backbone import MSGBackbone
from ..block import MSGBlock
from ..layers import LayerNorm
from ..stages import PatchMerging
from ..windows import StageGeometry, window_partition, window_reverse


class StageLayout(NamedTuple):
    """A stage's map of patch tokens and its windows.

    Attributes:
        height: Height of the map in tokens.
        width: Width of the map in tokens.
        rows: Rows of windows, the last of which may be padded.
        columns: Columns of windows.
        region: Side of a shuffle region in windows.
        whole: Whether the map fills its windows and the windows fill their regions. The tokens are grouped by region
            then. Otherwise every window is a region of its own in their layout, and the shuffle is done on the grid.
        geometry: The geometry of the padded map, by which the tokens are grouped.
    """

    height: int
    width: int
    rows: int
    columns: int
    region: int
    whole: bool
    geometry: StageGeometry


def stage_layouts(
    height: int, width: int, patch_size: int, window_size: int, shuffle_size: tuple[int, ...]
) -> tuple[StageLayout, ...]:
    """Return the layout of every stage for an image of any size.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        patch_size: Side of a patch token in pixels.
        window_size: Side of a window in tokens.
        shuffle_size: Side of each stage's shuffle regions in windows.
    """
    layouts = []
    height, width = -(-height // patch_size), -(-width // patch_size)
    for region in shuffle_size:
        rows, columns = -(-height // window_size), -(-width // window_size)
        filled = height == rows * window_size and width == columns * window_size
        whole = filled and rows % region == columns % region == 0
        geometry = StageGeometry(rows * window_size, columns * window_size, region if whole else 1)
        layouts.append(StageLayout(height, width, rows, columns, region, whole, geometry))
        height, width = -(-height // 2), -(-width // 2)
    return tuple(layouts)


class DetectionBackbone(MSGBackbone):
    """Backbone for images of any size: (B, in_chans, height, width) -> a map (B, C_i, H_i, W_i) for every stage.

    H_i and W_i are height and width over ``patch_size * 2**i``, rounded up. Parameters have the classifier's names, and
    every map has an extra LayerNorm ``norm<stage>``, so a classifier's checkpoint fits the rest.

    Nothing but the attention works on padding. In a block the normalised patches are padded with zeros to whole
    windows. Padded patches take part as keys and values, and the attention's output is cropped. For the shuffle, the
    grid of MSG tokens is padded with zeros to whole regions and cropped afterwards. The patch merging and the MLP
    see unpadded maps. Where nothing needs padding, the maps equal those of ``MSGFeatures(out_norm=True)``.

    The native kernels run the attention of a stage that needs no padding, and the MLP, normalisation and matrix
    products of all stages. The attention of a padded stage is composed of MindSpore's operators.

    Args:
        arguments: The arguments of ``msg_ms.MSGTransformer``, except ``img_size``, ``num_classes`` and ``ape``.

    Attributes:
        out_channels: Channels of every map.

    Raises:
        UserError: If an argument is out of range or does not fit the others.
    """

    def __init__(self, **arguments: Any):
        if arguments.get("ape"):
            raise UserError("ape=True: position embeddings have one image size, and the detector accepts any")
        architecture = Architecture(**arguments)
        architecture.check()
        super().__init__(architecture.padded())
        self.out_channels = list(self.dims)
        for i, dim in enumerate(self.dims):
            # Swin Transformer's names, which are attributes and not a list.
            setattr(self, f"norm{i}", LayerNorm(dim))

    def construct(self, x: Tensor, drop_path_noise: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return the maps (B, C_i, H_i, W_i); arguments as in ``maps_and_messages``."""
        return self.maps_and_messages(x, drop_path_noise)[0]

    def maps_and_messages(
        self, x: Tensor, drop_path_noise: Tensor | None = None
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return every stage's map and its grid of MSG tokens.

        Args:
            x: Images (B, in_chans, height, width).
            drop_path_noise: Uniform numbers in [0, 1), float32 (blocks, 2, B), for stochastic depth in training. If
                None, the device draws them.

        Returns:
            Two tuples: the maps (B, C_i, H_i, W_i), and the MSG tokens after a stage's last block
            (B, rows_i, columns_i, C_i).
        """
        batch, channels, height, width = x.shape
        _check_channels(channels, self.in_chans)
        layouts = _layouts(height, width, self.patch_size, self.window_size, self.shuffle_size)
        tokens = self._embed(x, layouts[0])
        scales = self.drop_path(batch, drop_path_noise)
        maps, messages, first = (), (), 0
        for i, stage in enumerate(self.layers):
            layout, last = layouts[i], first + self.depths[i]
            chosen = None if scales is None else scales[first:last]
            tokens = (
                stage.run_blocks(tokens, chosen) if layout.whole else self._run_blocks(stage, tokens, layout, chosen)
            )
            patches = getattr(self, f"norm{i}")(tokens[:, :, 1:])
            maps = (*maps, _map(patches, layout, self.window_size))
            messages = (*messages, _grid(tokens[:, :, :1], layout).transpose(0, 2, 3, 1))
            if i + 1 < len(self.layers):
                tokens = self._merge(stage.downsample, tokens, layout, layouts[i + 1])
            first = last
        return maps, messages

    def _embed(self, x: Tensor, layout: StageLayout) -> Tensor:
        """Return the tokens of the first stage in its layout."""
        batch, _, height, width = x.shape
        if layout.whole:
            return self.embed(x, layout.geometry)
        x = _pad(x, layout.height * self.patch_size - height, layout.width * self.patch_size - width)
        patches = self.pos_drop(_windows(self.patch_embed(x), layout, self.window_size))
        index = _first_messages(layout.rows, layout.columns, self.shuffle_size[0])
        messages = ops.gather(self.msg_tokens.astype(patches.dtype).reshape(-1, self.dims[0]), index, 0)
        shape = (batch, layout.rows * layout.columns, self.dims[0])
        messages = ops.broadcast_to(messages.reshape(1, *shape[1:]), shape).reshape(-1, 1, 1, self.dims[0])
        return ops.cat((messages, patches), 2)

    def _run_blocks(self, stage, x: Tensor, layout: StageLayout, scales: tuple[Tensor, ...] | None) -> Tensor:
        """Run the blocks of a padded stage."""
        valid = _valid_tokens(layout, self.window_size)
        for i, block in enumerate(stage.blocks):
            x = padded_block(block, x, valid, layout, None if scales is None else scales[i])
        return x

    def _merge(self, merging: PatchMerging, x: Tensor, layout: StageLayout, following: StageLayout) -> Tensor:
        """Return the tokens after the patch merging in the layout of the next stage."""
        if layout.whole and following.whole:
            return merging(x, layout.geometry, following.geometry)
        messages = merging.norm(merging.reduction(_grid(x[:, :, :1], layout)))
        patches = merging.norm(merging.reduction(_map(x[:, :, 1:], layout, self.window_size)))
        messages = window_partition(messages, 1, following.geometry[2])
        return ops.cat((messages, _windows(patches, following, self.window_size)), 2)

    def flops(self, height: int, width: int) -> float:
        """Return the multiply-adds for one image, counted as in the paper's code with the output norms.

        Padded patches count where they are computed by definition: in the attention.

        Args:
            height: Height of the image in pixels.
            width: Width of the image in pixels.
        """
        layouts = stage_layouts(height, width, self.patch_size, self.window_size, self.shuffle_size)
        tokens = layouts[0].height * layouts[0].width
        total = tokens * self.dims[0] * (self.in_chans * EMBED_KERNEL**2 + int(self.patch_norm))
        for i, (layout, dim, depth) in enumerate(zip(layouts, self.dims, self.depths, strict=True)):
            tokens, windows = layout.height * layout.width, layout.rows * layout.columns
            inside = self.window_size**2 + 1
            attention = windows * inside * dim * (4 * dim + 2 * inside)
            mlp = (tokens + windows) * 2 * dim * dim * self.mlp_ratio
            norms = 2 * (tokens + windows) * dim
            total += depth * (attention + mlp + norms) + tokens * dim
            if i + 1 < len(layouts):
                following = layouts[i + 1]
                merged = following.height * following.width + following.rows * following.columns
                total += merged * (9 * dim + 1) * 2 * dim
        return float(total)


def padded_block(
    block: MSGBlock, x: Tensor, valid: Tensor, layout: StageLayout, drop_path_scale: Tensor | None
) -> Tensor:
    """Run a block on tokens with padded patches.

    Args:
        block: The block.
        x: Tokens (B*rows*columns, 1, N, C). The values of padded patches are arbitrary; they are not used.
        valid: 1 for MSG tokens and real patches, 0 for padded patches: float32 (1, rows*columns*N, 1).
        layout: The stage's layout.
        drop_path_scale: Factors (2, B) of each image's two residual branches; None means 1.

    Returns:
        Tokens of the same shape.
    """
    scales = (None, None) if drop_path_scale is None else (drop_path_scale[0], drop_path_scale[1])
    normed = block.norm1(x)
    # Zeros after the normalisation: the keys and values of padding are the biases of qkv.
    normed = (normed.reshape(-1, valid.shape[1], x.shape[-1]) * valid.astype(normed.dtype)).reshape(x.shape)
    x = residual(x, block.attn(normed), scales[0])
    if block.shuffle:
        messages = shuffle_grid(_grid(x[:, :, :1], layout), layout.region)
        x = ops.cat((messages.transpose(0, 2, 3, 1).reshape(-1, 1, 1, x.shape[-1]), x[:, :, 1:]), 2)
    if block.fused and block.single_precision and x.dtype == ms.float32:
        return block.mlp_branch(x, *block.mlp_parameters, drop_path_scale)
    return residual(x, block.mlp(block.norm2(x)), scales[1])


def shuffle_grid(x: Tensor, region: int) -> Tensor:
    """Shuffle a grid of MSG tokens whose sides need not be multiples of the region's.

    The grid is padded with zeros at the right and at the bottom to whole regions, and cropped afterwards. A slice that
    is sent to a padded slot is lost, and a padded slot sends zeros.

    Args:
        x: MSG tokens (B, C, rows, columns).
        region: Side s of a shuffle region in windows.

    Returns:
        Tensor of the same shape.
    """
    _, channels, rows, columns = x.shape
    x = _pad(x, -rows % region, -columns % region)
    high, wide = x.shape[2] // region, x.shape[3] // region
    # (slice y, slice x, channel, high, slot y, wide, slot x): slice k of slot g goes to slice g of slot k.
    x = x.reshape(-1, region, region, channels // region**2, high, region, wide, region)
    x = x.transpose(0, 5, 7, 3, 4, 1, 6, 2).reshape(-1, channels, high * region, wide * region)
    return x[:, :, :rows, :columns]


def _map(patches: Tensor, layout: StageLayout, window_size: int) -> Tensor:
    """Return the patches of a stage's windows as a map (B, C, H, W) without padding."""
    height, width, region = layout.geometry
    patches = window_reverse(patches, window_size, region, height, width, channels_first=True)
    return patches[:, :, : layout.height, : layout.width]


def _grid(messages: Tensor, layout: StageLayout) -> Tensor:
    """Return MSG tokens (B*R, G, 1, C) as a grid (B, C, rows, columns)."""
    return window_reverse(messages, 1, layout.geometry[2], layout.rows, layout.columns, channels_first=True)


def _windows(patches: Tensor, layout: StageLayout, window_size: int) -> Tensor:
    """Return a map (B, H, W, C) as padded windows (B*R, G, w*w, C) in a stage's layout."""
    height, width, region = layout.geometry
    bottom, right = height - layout.height, width - layout.width
    if bottom + right > 0:
        patches = ops.pad(patches, (0, 0, 0, right, 0, bottom))
    return window_partition(patches, window_size, region)


def _pad(x: Tensor, bottom: int, right: int) -> Tensor:
    """Return images (B, C, height, width) with zeros at the bottom and at the right."""
    return x if bottom + right == 0 else ops.pad(x, (0, right, 0, bottom))


@constexpr
def _check_channels(channels, in_chans):
    """Raise UserError for images with other channels; runs while the graph is compiled."""
    if channels != in_chans:
        raise UserError(f"the input has {channels} channels, but the model has in_chans={in_chans}")


_layouts = constexpr(stage_layouts)


@constexpr
def _valid_tokens(layout, window_size):
    """Return 1 for MSG tokens and real patches and 0 for padding, float32 (1, windows*N, 1), in window order."""
    height, width, rows, columns = layout[:4]
    w = window_size
    inside = np.zeros((rows * w, columns * w), np.float32)
    inside[:height, :width] = 1
    inside = inside.reshape(rows, w, columns, w).transpose(0, 2, 1, 3).reshape(rows * columns, w * w)
    return Tensor(np.concatenate([np.ones((rows * columns, 1), np.float32), inside], 1).reshape(1, -1, 1))


@constexpr
def _first_messages(rows, columns, region):
    """Return each window's row in ``msg_tokens``, int32 (rows*columns,)."""
    y, x = np.divmod(np.arange(rows * columns), columns)
    return Tensor((y % region * region + x % region).astype(np.int32))
