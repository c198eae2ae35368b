"""MSG-Transformer (Fang et al., CVPR 2022), the architecture of December 2021, leaf to root.

Shape letters as in ``windows.py``: B images, H x W tokens, R shuffle regions per image, G windows per region,
N = w*w + 1 tokens per window with its message token in front, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import initializer
from mindspore.ops import constexpr

from ..errors import UserError
from ..ops import ImagePatches, TokenPatches
from .architecture import EMBED_KERNEL, EMBED_PADDING, check_architecture
from .block import MSGBlock
from .decay import is_no_decay
from .layers import DropPath, LayerNorm, Linear, PatchConv, truncated_normal
from .windows import stage_layouts, window_partition, window_reverse


class PatchEmbed(nn.Cell):
    """Overlapped 7x7 patch embedding: (B, in_chans, height, width) -> (B, H, W, C), H = height / patch_size."""

    def __init__(self, patch_size: int, in_chans: int, embed_dim: int, patch_norm: bool):
        super().__init__()
        self.proj = PatchConv(in_chans, embed_dim, EMBED_KERNEL, patch_size, EMBED_PADDING)
        self.norm = LayerNorm(embed_dim) if patch_norm else nn.Identity()
        self.patch_norm = patch_norm
        self.patches = ImagePatches(EMBED_KERNEL, patch_size, EMBED_PADDING)

    def construct(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x))

    def windows(self, x: Tensor, window_size: int, shuffle_size: int) -> Tensor:
        """The same cut into windows: (B, in_chans, height, width) -> (B*R, G, w*w, C)."""
        native = self.patches.available and self.proj.product_dtype == self.proj.stream_dtype == ms.float32
        if not (native and x.dtype == ms.float32 and self.patch_norm):
            return window_partition(self.construct(x), window_size, shuffle_size)
        rows = self.proj.product(self.patches(x, window_size, shuffle_size))
        return self.norm(rows, self.proj.bias).reshape(-1, shuffle_size**2, window_size**2, rows.shape[-1])


class PatchMerging(nn.Cell):
    """Halve both sides and double the channels of patch and message tokens with one 3x3 stride-2 convolution.

    (B*R, G, N, C) -> (B*R', G', N, 2*C); the windows keep their size, so there are a quarter as many.
    """

    def __init__(self, dim: int, window_size: int):
        super().__init__()
        self.window_size = window_size
        self.reduction = PatchConv(dim, 2 * dim, kernel_size=3, stride=2, padding=1)
        self.norm = LayerNorm(2 * dim)
        self.patches = TokenPatches()

    def construct(self, x: Tensor, layout: tuple, next_layout: tuple) -> Tensor:
        height, width, region = layout
        rows, columns, next_region = height // self.window_size, width // self.window_size, next_layout[2]
        if self.patches.available and x.dtype == self.reduction.product_dtype == ms.float32:
            y = self.reduction.product(self.patches(x, height, width, self.window_size, region, next_region))
            return self.norm(y, self.reduction.bias).reshape(-1, next_region**2, x.shape[2], y.shape[-1])
        messages = window_reverse(x[:, :, :1], 1, region, rows, columns, channels_first=True)
        patches = window_reverse(x[:, :, 1:], self.window_size, region, height, width, channels_first=True)
        messages = self.norm(self.reduction(messages))
        patches = self.norm(self.reduction(patches))
        return ops.cat(
            (
                window_partition(messages, 1, next_region),
                window_partition(patches, self.window_size, next_region),
            ),
            2,
        )


class Stage(nn.Cell):
    """``depth`` blocks at one resolution, then the merging that leads to the next stage, if there is one."""

    def __init__(self, blocks: Sequence[MSGBlock], downsample: PatchMerging | None):
        super().__init__()
        self.blocks = nn.CellList(list(blocks))
        for block in self.blocks:
            # They have no parameters, and as one Cell they are read and differentiated once.
            block.attention_branch, block.mlp_branch = blocks[0].attention_branch, blocks[0].mlp_branch
        self.downsample = downsample

    def run_blocks(self, x: Tensor, keep: tuple[Tensor, ...] | None = None) -> Tensor:
        """The blocks alone, (B*R, G, N, C) -> the same; ``keep`` has an entry for each, see :class:`MSGBlock`."""
        for i, block in enumerate(self.blocks):
            x = block(x, None if keep is None else keep[i])
        return x

    def merge(self, x: Tensor, layout: tuple, next_layout: tuple | None) -> Tensor:
        """The merging alone, where there is one; ``layout`` and ``next_layout`` as in ``stage_layouts``."""
        return x if self.downsample is None else self.downsample(x, layout, next_layout)

    def construct(
        self, x: Tensor, layout: tuple, next_layout: tuple | None, keep: tuple[Tensor, ...] | None = None
    ) -> Tensor:
        """(B*R, G, N, C) -> the same, or merged."""
        return self.merge(self.run_blocks(x, keep), layout, next_layout)


class MSGTransformer(nn.Cell):
    """MSG-Transformer image classifier: images (B, in_chans, height, width) -> logits (B, num_classes).

    The arguments are the paper code's, with its defaults; ``flops`` and every parameter's path and shape are
    its too (LayerNorm's parameters carry MindSpore's names, gamma and beta).

    Args:
        img_size: side of the square input in pixels, or (height, width). It is checked here and used by ``ape``
            and ``flops``; without ``ape`` any size that windows and regions fit is taken at run time.
        patch_size: pixels per token side, 3 or more.
        num_classes: 0 leaves the head out, and the output is the features.
        embed_dim: channels of the first stage; each later stage has twice those of the one before.
        depths, num_heads, shuffle_size: one entry per stage; the region sizes are in windows.
        qk_scale: replaces 1/sqrt(channels per head).
        drop_rate, attn_drop_rate: dropout after projections, and of the attention weights.
        drop_path_rate: stochastic depth of the last block; it grows linearly from 0 in the first.
        ape: add a learned absolute position embedding (1, tokens, embed_dim) to the patch tokens.
        patch_norm: LayerNorm after the patch embedding.
        manip_type: "shuf" shuffles the messages, "none" leaves them in their windows.

    Raises:
        UserError (a ValueError): for settings that don't fit together, naming argument, value and remedy.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 4,
        in_chans: int = 3,
        num_classes: int = 1000,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        ape: bool = False,
        patch_norm: bool = True,
        shuffle_size: Sequence[int] = (4, 4, 2, 1),
        manip_type: str = "shuf",
    ):
        super().__init__()
        self.img_size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        self.patch_size, self.window_size, self.shuffle_size = patch_size, window_size, tuple(shuffle_size)
        self.in_chans, self.num_classes, self.mlp_ratio = in_chans, num_classes, mlp_ratio
        self.depths, self.patch_norm = tuple(depths), patch_norm
        self.dims = tuple(embed_dim * 2**i for i in range(len(self.depths)))
        self.num_features = self.dims[-1] if self.dims else 0
        shuffles = tuple(manip_type == "shuf" and size > 1 for size in self.shuffle_size)
        check_architecture(self, tuple(num_heads), manip_type, (drop_rate, attn_drop_rate, drop_path_rate))
        self.layouts = stage_layouts(*self.img_size, patch_size, window_size, self.shuffle_size)

        self.patch_embed = PatchEmbed(patch_size, in_chans, embed_dim, patch_norm)
        tokens = self.layouts[0][0] * self.layouts[0][1]
        self.absolute_pos_embed = _token_parameter("absolute_pos_embed", (1, tokens, embed_dim)) if ape else None
        self.msg_tokens = _token_parameter("msg_tokens", (1, self.shuffle_size[0] ** 2, 1, embed_dim))
        self.pos_drop = nn.Dropout(p=drop_rate)
        self.drop_path = DropPath(np.linspace(0, drop_path_rate, sum(depths)))
        self.layers = nn.CellList(
            [
                Stage(
                    [
                        MSGBlock(
                            dim, heads, window_size, mlp_ratio, qkv_bias, qk_scale, drop_rate, attn_drop_rate, shuffle
                        )
                        for _ in range(depth)
                    ],
                    PatchMerging(dim, window_size) if dim != self.num_features else None,
                )
                for dim, heads, depth, shuffle in zip(self.dims, num_heads, depths, shuffles, strict=True)
            ]
        )  # fmt: skip
        self.norm = LayerNorm(self.num_features)
        self.head = Linear(self.num_features, num_classes) if num_classes > 0 else nn.Identity()

    @property
    def compile_phase(self) -> str | None:
        """The graph that MindSpore runs this model in."""
        return self._compile_phase

    @compile_phase.setter
    def compile_phase(self, value: str) -> None:
        # It tells all Cells, hundreds of them, at every call: one image would wait milliseconds for that.
        if value != self._compile_phase:
            nn.Cell.compile_phase.fset(self, value)

    def no_weight_decay(self) -> set[str]:
        """Names that weight decay spares besides vectors, as mindcv's optimizers ask for them."""
        return {parameter.name for parameter in self.trainable_params() if is_no_decay(parameter.name)}

    def recompute_blocks(self) -> None:
        """Compute the blocks' insides again in the backward pass, so that only their inputs are kept for it."""
        for stage in self.layers:
            for block in stage.blocks:
                block.recompute()

    def embed(self, x: Tensor, layout: tuple) -> Tensor:
        """Patch tokens in windows, each with its message token: (B, in_chans, height, width) -> (B*R, G, N, C)."""
        batch = x.shape[0]
        # The region size comes from the layout, so that the graph can't be built before the layout is checked.
        x = self.patch_embed.windows(x, self.window_size, layout[2])
        regions, windows, _, channels = x.shape
        if self.absolute_pos_embed is not None:
            table = self.absolute_pos_embed.reshape(1, layout[0], layout[1], channels).astype(x.dtype)
            table = window_partition(table, self.window_size, layout[2])
            x = (x.reshape(batch, -1) + table.reshape(1, -1)).reshape(x.shape)
        x = self.pos_drop(x)
        messages = ops.broadcast_to(self.msg_tokens.astype(x.dtype), (regions, windows, 1, channels))
        return ops.cat((messages, x), 2)

    def walk_stages(self, x: Tensor, draws: Tensor | None = None) -> tuple[tuple, tuple, tuple]:
        """(layouts, tokens before the merging, tokens after it), each with an entry per stage; layouts end with None.

        Tokens are (B*R, G, N, C), stage i's before its merging in layout i and after it in layout i + 1.
        """
        batch, channels, height, width = x.shape
        layouts = _run_time_layouts(
            (height, width, channels), self.in_chans, self.patch_size, self.window_size, self.shuffle_size,
            None if self.absolute_pos_embed is None else self.img_size,
        )  # fmt: skip
        x = self.embed(x, layouts[0])
        keep = self.drop_path(batch, draws)
        before, after, first = (), (), 0
        for i, stage in enumerate(self.layers):
            last = first + self.depths[i]
            tokens = stage.run_blocks(x, None if keep is None else keep[first:last])
            x = stage.merge(tokens, layouts[i], layouts[i + 1])
            before, after, first = (*before, tokens), (*after, x), last
        return layouts, before, after

    def forward_stages(self, x: Tensor, draws: Tensor | None = None) -> tuple[Tensor, ...]:
        """Each stage's tokens, merging included: stage i gives (B*R, G, N, C) in the layout of stage i + 1.

        ``draws`` (blocks, 2, B), uniform in [0, 1), are what stochastic depth goes by in training, so that who calls
        decides its randomness; without them the device draws.
        """
        return self.walk_stages(x, draws)[2]

    def forward_features(self, x: Tensor, draws: Tensor | None = None) -> Tensor:
        """Features of the last stage's message token: (B, num_features).

        Where an input larger than the paper's leaves several windows in the last stage, their messages' mean.
        """
        height, width = x.shape[2:]
        window_pixels = self.patch_size * self.window_size * 2 ** (len(self.depths) - 1)
        windows = (height // window_pixels) * (width // window_pixels)
        x = self.norm(self.forward_stages(x, draws)[-1][:, :, 0])
        # Asked of the image's sides alone, so that a graph for any number of images has no branch here.
        if windows == 1:
            return x.reshape(-1, self.num_features)
        return x.reshape(-1, windows, self.num_features).mean(1)

    def construct(self, x: Tensor, draws: Tensor | None = None) -> Tensor:
        return self.head(self.forward_features(x, draws))

    def flops(self) -> float:
        """Multiply-adds of one image of ``img_size``, counted as the paper's code does."""
        height, width, _ = self.layouts[0]
        total = height * width * self.dims[0] * (self.in_chans * EMBED_KERNEL**2 + int(self.patch_norm))
        for (height, width, _), dim, depth in zip(self.layouts, self.dims, self.depths, strict=True):
            windows = height * width // self.window_size**2
            total += depth * self._block_flops(windows, dim)
            if dim != self.num_features:
                merged = height * width // 4 + windows // 4
                total += (height * width + windows) * dim + merged * 9 * dim * 2 * dim
        shrink = 4 ** (len(self.dims) - 1)
        total += self.num_features * (self.layouts[0][0] * self.layouts[0][1] // shrink + 1)
        return float(total + self.num_features * self.num_classes)

    def _block_flops(self, windows: int, dim: int) -> float:
        tokens = self.window_size**2 + 1
        attention = tokens * dim * 3 * dim + 2 * tokens * tokens * dim + tokens * dim * dim
        return windows * (2 * tokens * dim + attention + 2 * tokens * dim * dim * self.mlp_ratio)


def _token_parameter(name: str, shape: tuple[int, ...]) -> Parameter:
    return Parameter(initializer(truncated_normal(), shape), name=name)


@constexpr
def _run_time_layouts(image, in_chans, patch_size, window_size, shuffle_size, ape_size):
    """Layouts of the stages for the image at hand, and a last None; runs while the graph is compiled."""
    height, width, channels = image
    if channels != in_chans:
        raise UserError(f"the input has {channels} channels, the model in_chans={in_chans}")
    if ape_size is not None and (height, width) != tuple(ape_size):
        raise UserError(f"the input is {height} x {width}; with ape=True only img_size={tuple(ape_size)} fits")
    return (*stage_layouts(height, width, patch_size, window_size, shuffle_size), None)
