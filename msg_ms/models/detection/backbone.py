"""MSG-Transformer as a detection backbone: images of any size, with padding only inside the attention.

Shape letters as in ``msg_ms/ops/windows.py``.
"""

from __future__ import annotations

from typing import Any

from mindspore import Tensor, ops
from mindspore.ops import constexpr

from ...errors import UserError
from ...ops import Transpose
from ..architecture import EMBED_KERNEL, Architecture
from ..arguments import switch
from ..block import MSGBlock
from ..features import FeatureBackbone
from ..stages import PatchMerging
from ..windows import window_partition
from .window_maps import (
    WindowMap,
    first_messages,
    native_padding,
    pad_images,
    shuffle_grid,
    stage_maps,
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
        if switch("ape", arguments.get("ape", False)):
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
        maps_of_stages = _stage_maps(height, width, self.patch_size, self.window_size, self.shuffle_size)
        tokens = self._embed(x, maps_of_stages[0])
        scales = self.drop_path(batch, drop_path_noise)
        maps: tuple[Tensor, ...] = ()
        messages: tuple[Tensor, ...] = ()
        first = 0
        for i, stage in enumerate(self.layers):
            window_map, last = maps_of_stages[i], first + self.depths[i]
            chosen = None if scales is None else scales[first:last]
            tokens = (
                stage.run_blocks(tokens, chosen)
                if window_map.whole
                else self._run_blocks(stage, tokens, window_map, chosen)
            )
            patches = getattr(self, f"norm{i}")(tokens[:, :, 1:])
            maps = (*maps, to_map(patches, window_map, self.window_size, self.transpose))
            messages = (*messages, to_grid(tokens[:, :, :1], window_map).transpose(0, 2, 3, 1))
            if i + 1 < len(self.layers):
                tokens = self._merge(stage.downsample, tokens, window_map, maps_of_stages[i + 1])
            first = last
        return maps, messages

    def _embed(self, x: Tensor, window_map: WindowMap) -> Tensor:
        """Return the tokens of the first stage in windows."""
        batch, _, height, width = x.shape
        if window_map.whole:
            return self.embed(x, window_map.geometry)
        x = pad_images(x, window_map.height * self.patch_size - height, window_map.width * self.patch_size - width)
        patches = self.pos_drop(to_windows(self.patch_embed(x), window_map, self.window_size, self.transpose))
        index = first_messages(window_map.rows, window_map.columns, self.shuffle_size[0])
        messages = ops.gather(self.msg_tokens.astype(patches.dtype).reshape(-1, self.dims[0]), index, 0)
        shape = (batch, window_map.rows * window_map.columns, self.dims[0])
        messages = ops.broadcast_to(messages.reshape(1, *shape[1:]), shape).reshape(-1, 1, 1, self.dims[0])
        return ops.cat((messages, patches), 2)

    def _run_blocks(self, stage, x: Tensor, window_map: WindowMap, scales: tuple[Tensor, ...] | None) -> Tensor:
        """Run the blocks of a padded stage."""
        for i, block in enumerate(stage.blocks):
            scale = None if scales is None else scales[i]
            if block.runs_kernels(x):
                x = block(x, scale, native_padding(window_map))
            else:
                x = padded_block(block, x, valid_tokens(window_map, self.window_size), window_map, scale)
        return x

    def _merge(self, merging: PatchMerging, x: Tensor, window_map: WindowMap, following: WindowMap) -> Tensor:
        """Return the tokens after the patch merging in the windows of the next stage."""
        if window_map.whole and following.whole:
            return merging(x, window_map.geometry, following.geometry)
        messages = merging.norm(merging.reduction(to_grid(x[:, :, :1], window_map)))
        patches = merging.norm(merging.reduction(to_map(x[:, :, 1:], window_map, self.window_size, self.transpose)))
        messages = window_partition(messages, 1, following.geometry[2])
        return ops.cat((messages, to_windows(patches, following, self.window_size, self.transpose)), 2)

    def flops(self, height: int, width: int) -> float:  # type: ignore[override]
        """Return the multiply-adds for one image, counted as in the paper's code with the output norms.

        Padded patches count where they are computed by definition: in the attention.

        Args:
            height: Height of the image in pixels.
            width: Width of the image in pixels.
        """
        maps_of_stages = stage_maps(height, width, self.patch_size, self.window_size, self.shuffle_size)
        tokens = maps_of_stages[0].height * maps_of_stages[0].width
        total: float = tokens * self.dims[0] * (self.in_chans * EMBED_KERNEL**2 + int(self.patch_norm))
        for i, (window_map, dim, depth) in enumerate(zip(maps_of_stages, self.dims, self.depths, strict=True)):
            tokens, windows = window_map.height * window_map.width, window_map.rows * window_map.columns
            inside = self.window_size**2 + 1
            attention = windows * inside * dim * (4 * dim + 2 * inside)
            mlp = (tokens + windows) * 2 * dim * dim * self.mlp_ratio
            norms = 2 * (tokens + windows) * dim
            total += depth * (attention + mlp + norms) + tokens * dim
            if i + 1 < len(maps_of_stages):
                following = maps_of_stages[i + 1]
                merged = following.height * following.width + following.rows * following.columns
                total += merged * (9 * dim + 1) * 2 * dim
        return total


def padded_block(
    block: MSGBlock, x: Tensor, valid: Tensor, window_map: WindowMap, drop_path_scale: Tensor | None
) -> Tensor:
    """Run a block on tokens with padded patches, by MindSpore's operators.

    Args:
        block: The block.
        x: Tokens (B*rows*columns, 1, N, C). The values of padded patches are arbitrary; they are not used.
        valid: 1 for MSG tokens and real patches, 0 for padded patches: float32 (1, rows*columns*N, 1).
        window_map: The stage's map and windows.
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
        messages = shuffle_grid(to_grid(x[:, :, :1], window_map), window_map.region)
        x = ops.cat((messages.transpose(0, 2, 3, 1).reshape(-1, 1, 1, x.shape[-1]), x[:, :, 1:]), 2)
    return block.residual(x, block.mlp(block.norm2(x)), scales[1])


@constexpr
def _check_channels(channels, in_chans):
    """Raise UserError for images with other channels; runs while the graph is compiled."""
    if channels != in_chans:
        raise UserError(f"the input has {channels} channels, but the model has in_chans={in_chans}")


_stage_maps = constexpr(stage_maps)
