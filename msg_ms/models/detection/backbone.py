"""MSG-Transformer as a detection backbone: images of any size, with padding only inside the attention.

Shape letters as in ``msg_ms/ops/windows.py``.
"""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Tensor, ops
from mindspore.ops import constexpr

from ...errors import UserError
from ...ops import Transpose
from ..architecture import EMBED_KERNEL, Architecture
from ..block import MSGBlock
from ..features import FeatureBackbone
from ..stages import PatchMerging
from ..windows import window_partition
from .window_maps import (
    StageLayout,
    first_messages,
    native_padding,
    pad_images,
    shuffle_grid,
    stage_layouts,
    to_grid,
    to_map,
    to_windows,
    valid_tokens,
)


class DetectionBackbone(FeatureBackbone):
    """Backbone for images of any size: (B, in_chans, height, width) -> a map (B, C_i, H_i, W_i) for every stage.

    H_i and W_i are height and width over ``patch_size * 2**i``, rounded up. Parameters have the classifier's names, and
    every map has an extra LayerNorm ``norm<stage>``, so a classifier's checkpoint fits the rest.

    Nothing but the attention works on padding. In a block the normalised patches are padded with zeros to whole
    windows. Padded patches take part as keys and values, and the attention's output is cropped. For the shuffle, the
    grid of MSG tokens is padded with zeros to whole regions and cropped afterwards. The patch merging and the MLP
    see unpadded maps. Where nothing needs padding, the maps equal those of ``MSGFeatures(out_norm=True)``.

    The native kernels serve padded stages, too.

    Args:
        arguments: The arguments of ``msg_ms.MSGTransformer``, except ``img_size``, ``num_classes`` and ``ape``.

    Attributes:
        out_channels: Channels of every map.

    Raises:
        UserError: If an argument is out of range or does not fit the others.
    """

    any_size = True

    def __init__(self, **arguments: Any):
        if arguments.get("ape"):
            raise UserError("ape=True: position embeddings have one image size, and the detector accepts any")
        architecture = Architecture(**arguments)
        architecture.check()
        super().__init__(architecture.padded())
        self.out_channels = list(self.dims)
        self.transpose = Transpose()
        self.add_output_norms(range(len(self.dims)))

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
            maps = (*maps, to_map(patches, layout, self.window_size, self.transpose))
            messages = (*messages, to_grid(tokens[:, :, :1], layout).transpose(0, 2, 3, 1))
            if i + 1 < len(self.layers):
                tokens = self._merge(stage.downsample, tokens, layout, layouts[i + 1])
            first = last
        return maps, messages

    def _embed(self, x: Tensor, layout: StageLayout) -> Tensor:
        """Return the tokens of the first stage in its layout."""
        batch, _, height, width = x.shape
        if layout.whole:
            return self.embed(x, layout.geometry)
        x = pad_images(x, layout.height * self.patch_size - height, layout.width * self.patch_size - width)
        patches = self.pos_drop(to_windows(self.patch_embed(x), layout, self.window_size, self.transpose))
        index = first_messages(layout.rows, layout.columns, self.shuffle_size[0])
        messages = ops.gather(self.msg_tokens.astype(patches.dtype).reshape(-1, self.dims[0]), index, 0)
        shape = (batch, layout.rows * layout.columns, self.dims[0])
        messages = ops.broadcast_to(messages.reshape(1, *shape[1:]), shape).reshape(-1, 1, 1, self.dims[0])
        return ops.cat((messages, patches), 2)

    def _run_blocks(self, stage, x: Tensor, layout: StageLayout, scales: tuple[Tensor, ...] | None) -> Tensor:
        """Run the blocks of a padded stage."""
        for i, block in enumerate(stage.blocks):
            scale = None if scales is None else scales[i]
            if block.fused and block.single_precision and x.dtype == ms.float32:
                x = block(x, scale, native_padding(layout))
            else:
                x = padded_block(block, x, valid_tokens(layout, self.window_size), layout, scale)
        return x

    def _merge(self, merging: PatchMerging, x: Tensor, layout: StageLayout, following: StageLayout) -> Tensor:
        """Return the tokens after the patch merging in the layout of the next stage."""
        if layout.whole and following.whole:
            return merging(x, layout.geometry, following.geometry)
        messages = merging.norm(merging.reduction(to_grid(x[:, :, :1], layout)))
        patches = merging.norm(merging.reduction(to_map(x[:, :, 1:], layout, self.window_size, self.transpose)))
        messages = window_partition(messages, 1, following.geometry[2])
        return ops.cat((messages, to_windows(patches, following, self.window_size, self.transpose)), 2)

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
    """Run a block on tokens with padded patches, by MindSpore's operators.

    Args:
        block: The block.
        x: Tokens (B*rows*columns, 1, N, C). The values of padded patches are arbitrary; they are not used.
        valid: 1 for MSG tokens and real patches, 0 for padded patches: float32 (1, rows*columns*N, 1).
        layout: The stage's layout.
        drop_path_scale: Factors (2, B) of each image's two residual branches; None means 1.

    Returns:
        Tokens of the same shape.
    """
    scales = (None, None) if drop_path_scale is None else ops.unstack(drop_path_scale)
    normed = block.norm1(x)
    # Zeros after the normalisation: the keys and values of padding are the biases of qkv.
    normed = (normed.reshape(-1, valid.shape[1], x.shape[-1]) * valid.astype(normed.dtype)).reshape(x.shape)
    x = block.residual(x, block.attn(normed), scales[0])
    if block.shuffle:
        messages = shuffle_grid(to_grid(x[:, :, :1], layout), layout.region)
        x = ops.cat((messages.transpose(0, 2, 3, 1).reshape(-1, 1, 1, x.shape[-1]), x[:, :, 1:]), 2)
    return block.residual(x, block.mlp(block.norm2(x)), scales[1])


@constexpr
def _check_channels(channels, in_chans):
    """Raise UserError for images with other channels; runs while the graph is compiled."""
    if channels != in_chans:
        raise UserError(f"the input has {channels} channels, but the model has in_chans={in_chans}")


_layouts = constexpr(stage_layouts)
