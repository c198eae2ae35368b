"""MSG-Transformer as an image classifier (Fang et al., CVPR 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.ops import constexpr

from ..errors import UserError, shown
from ..framework.graph_method import graph_method
from .architecture import Architecture, check_at_least
from .arguments import switch, whole_number
from .backbone import MSGBackbone
from .feature_info import take_indices
from .inputs import FLOATS
from .layers import LayerNorm, Linear
from .precision import set_layer_precision
from .windows import StageGeometry, window_reverse

MOST_CLASSES = 2**24
LAYOUTS = ("NCHW", "NHWC")
_taken = constexpr(take_indices)


def _features_inputs(model: MSGTransformer, x: Any = None, drop_path_noise: Any = None, pooled: Any = False) -> tuple:
    """Return the arguments of ``forward_features``; raise UserError unless they fit."""
    return *model.checked_inputs(x, drop_path_noise), switch("pooled", pooled)


def _head_inputs(model: MSGTransformer, x: Any = None, pre_logits: Any = False) -> tuple:
    """Return the arguments of ``forward_head``; raise UserError unless they fit."""
    channels, tokens = model.num_features, model.window_size**2 + 1
    layout = f"features must be a Tensor (B, {channels}), or (B, M + H*W, {channels}) as forward_features returns them"
    if not isinstance(x, Tensor):
        raise UserError(f"{layout}, not {type(x).__name__} {shown(x)}")
    whole = x.ndim == 2 or (x.ndim == 3 and x.shape[1] > 0 and x.shape[1] % tokens == 0)
    if not whole or x.shape[-1] != channels or x.dtype not in FLOATS:
        raise UserError(f"{layout}, not {str(x.dtype).lower()} of shape {tuple(x.shape)}")
    return x, switch("pre_logits", pre_logits)


def _intermediates_inputs(
    model: MSGTransformer,
    x: Any = None,
    indices: Any = None,
    norm: Any = False,
    stop_early: Any = False,
    output_fmt: Any = "NCHW",
    intermediates_only: Any = False,
) -> tuple:
    """Return the arguments of ``forward_intermediates``; raise UserError unless they fit."""
    x, _ = model.checked_inputs(x)
    taken = take_indices(len(model.depths), indices)
    norm, stop_early = switch("norm", norm), switch("stop_early", stop_early)
    if not isinstance(output_fmt, str) or output_fmt not in LAYOUTS:
        raise UserError(f"output_fmt={shown(output_fmt)}: must be one of {', '.join(LAYOUTS)}")
    return x, taken, norm, stop_early, output_fmt, switch("intermediates_only", intermediates_only)


class MSGTransformer(MSGBackbone):
    """MSG-Transformer image classifier: images (B, in_chans, height, width) -> logits (B, num_classes).

    The arguments, their defaults, the parameters' names and shapes and ``flops`` are those of the paper's code.
    LayerNorm's parameters have MindSpore's names, gamma and beta.

    Args:
        img_size: Side of the square input in pixels, or (height, width). ``ape`` and ``flops`` use it. Without ``ape``
            the model also accepts any other size that windows and regions fit.
        patch_size: Side of a patch token in pixels, 3 or more.
        in_chans: Channels of the image.
        num_classes: Number of classes. With 0 the model has no head and returns features (B, num_features).
        embed_dim: Channels of the first stage; they double at every later stage.
        depths: Blocks of every stage.
        num_heads: Attention heads of every stage.
        window_size: Side of a window in tokens.
        mlp_ratio: Hidden channels of the MLPs, in multiples of the stage's channels.
        qkv_bias: Add a bias to queries, keys and values.
        qk_scale: Scale of the queries; None means 1 / sqrt(channels per head).
        drop_rate: Dropout after the embedding, the projections and in the MLPs.
        attn_drop_rate: Dropout of the attention weights.
        drop_path_rate: Stochastic depth of the last block; it grows linearly from 0 in the first.
        ape: Add a learned absolute position embedding (1, tokens, embed_dim) to the patch tokens.
        patch_norm: Normalise the patch embedding.
        shuffle_size: Side of every stage's shuffle regions in windows.
        manip_type: "shuf" shuffles the MSG tokens; "none" leaves them in their windows.

    Raises:
        UserError: If an argument is out of range or does not fit the others. It is a ValueError; the message names the
            argument, its value and values that fit.
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
        architecture = Architecture(
            img_size=img_size,
            patch_size=patch_size,
            in_chans=in_chans,
            embed_dim=embed_dim,
            depths=depths,
            num_heads=num_heads,
            window_size=window_size,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            qk_scale=qk_scale,
            drop_rate=drop_rate,
            attn_drop_rate=attn_drop_rate,
            drop_path_rate=drop_path_rate,
            ape=ape,
            patch_norm=patch_norm,
            shuffle_size=shuffle_size,
            manip_type=manip_type,
        )
        num_classes = whole_number("num_classes", num_classes, most=MOST_CLASSES)
        check_at_least("num_classes", num_classes, 0)
        super().__init__(architecture)
        self.norm = LayerNorm(self.num_features)
        self._set_head(num_classes)

    def _set_head(self, num_classes: int) -> None:
        self.num_classes = num_classes
        head = Linear(self.num_features, num_classes, output_float32=True) if num_classes > 0 else nn.Identity()
        self.head = head

    @property
    def head_hidden_size(self) -> int:
        """Channels of the features that the head receives, as timm calls them."""
        return self.num_features

    def get_classifier(self) -> nn.Cell:
        """Return the head: a linear layer, or ``nn.Identity`` without classes."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head by a new one with random weights.

        Optimizers and graphs of larger Cells that were built before keep the old one.

        Args:
            num_classes: Number of classes; 0 leaves out the head.
            global_pool: None: the features are always the mean over the MSG tokens.

        Raises:
            UserError: If the number is out of range, or there is a ``global_pool``.
        """
        if global_pool is not None:
            raise UserError(f"global_pool={shown(global_pool)}: must be None, as the MSG tokens are the features")
        num_classes = whole_number("num_classes", num_classes, 0, MOST_CLASSES)
        prefix = self.msg_tokens.name.removesuffix("msg_tokens")  # the path in a larger model
        matmul = next((c.matmul_dtype for _, c in self.cells_and_names() if hasattr(c, "matmul_dtype")), ms.float32)
        self._set_head(num_classes)
        for name, parameter in self.head.parameters_and_names():
            parameter.name = f"{prefix}head.{name}"
        set_layer_precision(self.head, matmul)
        self.forget_graphs()

    def _pooled(self, x: Tensor, drop_path_noise: Tensor | None = None) -> Tensor:
        """Return the normalised MSG tokens of the last stage, averaged over its windows: (B, num_features)."""
        height, width = x.shape[2:]
        window_pixels = self.patch_size * self.window_size * 2 ** (len(self.depths) - 1)
        windows = (height // window_pixels) * (width // window_pixels)
        x = self.norm(self.forward_stages(x, drop_path_noise, True)[-1][:, :, 0])
        # This depends on height and width only, so a graph for any number of images has no branch here.
        if windows == 1:
            return x.reshape(-1, self.num_features)
        return x.reshape(-1, windows, self.num_features).mean(1)

    def _in_order(self, x: Tensor, geometry: StageGeometry) -> Tensor:
        """Return the tokens (B*R, G, N, C) of a stage as (B, M + H*W, C): MSG tokens, then patch tokens, row by row."""
        rows, columns, region = geometry
        channels, windows = x.shape[3], (rows // self.window_size) * (columns // self.window_size)
        messages = window_reverse(x[:, :, :1], 1, region, rows // self.window_size, columns // self.window_size)
        patches = window_reverse(x[:, :, 1:], self.window_size, region, rows, columns)
        return ops.cat((messages.reshape(-1, windows, channels), patches.reshape(-1, rows * columns, channels)), 1)

    @graph_method(_features_inputs)
    def forward_features(self, x: Tensor, drop_path_noise: Tensor | None = None, pooled: bool = False) -> Tensor:
        """Return the normalised tokens of the last stage, or the features that the head receives.

        timm's ``forward_features`` returns tokens, mindcv's pooled features; ``forward_head`` accepts both.

        Args:
            x: Images (B, in_chans, height, width).
            drop_path_noise: See ``walk_stages``.
            pooled: Return the features, without the last block's MLP for patch tokens that they do not need.

        Returns:
            Tokens (B, M + H*W, num_features): first the MSG token of each of the M windows, then the H x W patch
            tokens, both row by row. M is 1 at the paper's image size. If ``pooled``, the mean over the MSG tokens
            (B, num_features); the paper's code fails on inputs that leave several windows.

        Raises:
            UserError: If the image does not fit the model.
        """
        if pooled:
            return self._pooled(x, drop_path_noise)
        walked = self.walk_stages(x, drop_path_noise)
        return self._in_order(self.norm(walked[1][-1]), walked[0][len(self.depths) - 1])

    @graph_method(_head_inputs)
    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return the logits (B, num_classes) of features or tokens.

        Args:
            x: The result of ``forward_features``: tokens (B, M + H*W, num_features), or features (B, num_features).
            pre_logits: Return the features (B, num_features) in place of the logits.

        Raises:
            UserError: If ``x`` has another shape.
        """
        if x.ndim == 3:
            x = x[:, : x.shape[1] // (self.window_size**2 + 1)].mean(1)
        return x if pre_logits else self.head(x)

    @graph_method(_intermediates_inputs)
    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> tuple:
        """Return the tokens of the last stage and the maps of several stages, as timm's models do.

        Args:
            x: Images (B, in_chans, height, width).
            indices: The stages whose maps are returned: None for all, a number for the last ones, or a list.
            norm: Normalise the last stage's map by the classifier's norm.
            stop_early: Compute no stages after the last one of ``indices``; the tokens are that stage's then.
            output_fmt: "NCHW" or "NHWC", the layout of the maps.
            intermediates_only: Return the maps alone.

        Returns:
            Tokens as in ``forward_features``, and a tuple of maps (B, C_i, H_i, W_i). Tokens of an earlier stage are
            not normalised.

        Raises:
            UserError: If an argument is out of range or the image does not fit the model.
        """
        walked, last = self.walk_stages(x), len(self.depths) - 1
        geometry, tokens = walked[0], walked[1]  # the compiler warns of unused parts of an unpacked tuple
        taken = _taken(last + 1, indices)
        maps: tuple[Tensor, ...] = ()
        for i in taken:
            patches = tokens[i][:, :, 1:]
            if norm and i == last:
                patches = self.norm(patches)
            rows, columns, region = geometry[i]
            channels_first = output_fmt == "NCHW"
            maps = (*maps, window_reverse(patches, self.window_size, region, rows, columns, channels_first))
        if intermediates_only:
            return maps
        if stop_early and taken[-1] < last:
            return self._in_order(tokens[taken[-1]], geometry[taken[-1]]), maps
        return self._in_order(self.norm(tokens[last]), geometry[last]), maps

    def construct(self, x: Tensor, drop_path_noise: Tensor | None = None) -> Tensor:
        """Return the logits (B, num_classes).

        Args:
            x: Images (B, in_chans, height, width).
            drop_path_noise: See ``walk_stages``.

        Raises:
            UserError: If the image does not fit the model.
        """
        return self.head(self._pooled(x, drop_path_noise))

    def flops(self) -> float:
        """Return the multiply-adds for one image of ``img_size``, counted as in the paper's code."""
        height, width, _ = self.geometry[0]
        norm = self.num_features * (height * width // 4 ** (len(self.dims) - 1) + 1)
        return super().flops() + norm + self.num_features * self.num_classes
