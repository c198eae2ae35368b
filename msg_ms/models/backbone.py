"""The backbone of MSG-Transformer (Fang et al., CVPR 2022): the architecture of the paper's code of December 2021.

Shape letters as in ``msg_ms/ops/windows.py``: B images, H x W tokens, R shuffle regions per image, G windows per
region, N = w*w + 1 tokens per window with its MSG token in front, C channels.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any, NoReturn

from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import initializer
from mindspore.ops import constexpr

from ..errors import UserError
from ..framework.compile_phase import FastCompilePhase
from ..framework.graph_method import GraphMethods
from ..framework.recompute import set_recompute
from ..framework.repeated_call import FastRepeatedCall
from .architecture import EMBED_KERNEL, Architecture
from .arguments import check_noise, switch
from .block import MSGBlock
from .decay import is_no_decay
from .feature_info import FeatureInfo
from .inputs import AcceptsArrays, as_images
from .layer_decay import layer_key
from .layers import DropPath, truncated_normal
from .stages import PatchEmbed, PatchMerging, Stage
from .windows import StageGeometry, stage_geometry, window_partition


class MSGBackbone(AcceptsArrays, GraphMethods, FastCompilePhase, FastRepeatedCall):
    """Patch embedding and stages: the part that the classifier and the feature extractor share.

    Args:
        architecture: The constructor arguments, see ``msg_ms.MSGTransformer``.

    Attributes:
        geometry: A ``StageGeometry`` for every stage, for images of ``img_size``.
        dims: Channels of every stage.
        num_features: Channels of the last stage.
        feature_info: For every stage the channels ``num_chs`` and the stride ``reduction`` of its map, see
            ``FeatureInfo``.

    Raises:
        UserError: If an argument is out of range or does not fit the others.
    """

    # Whether images need not fit windows and regions. Convolutions unfold their patches then, as no kernel does it.
    any_size = False

    def __init__(self, architecture: Architecture):
        super().__init__()
        a = architecture
        a.check()
        self.img_size, self.geometry = a.image_sides, a.geometry
        self.patch_size, self.window_size, self.shuffle_size = a.patch_size, a.window_size, tuple(a.shuffle_size)
        self.in_chans, self.mlp_ratio, self.patch_norm = a.in_chans, a.mlp_ratio, a.patch_norm
        self.depths, self.dims, self.num_features = tuple(a.depths), a.dims, a.dims[-1]
        self.feature_info = FeatureInfo(a.dims, a.patch_size, range(len(a.depths)))

        # The order of these lines is the order in which random numbers are drawn.
        self.patch_embed = PatchEmbed(a.patch_size, a.in_chans, a.embed_dim, a.patch_norm)
        tokens = self.geometry[0].height * self.geometry[0].width
        self.absolute_pos_embed = _token_parameter("absolute_pos_embed", (1, tokens, a.embed_dim)) if a.ape else None
        self.msg_tokens = _token_parameter("msg_tokens", (1, self.shuffle_size[0] ** 2, 1, a.embed_dim))
        self.pos_drop = nn.Dropout(p=a.drop_rate)
        self.drop_path = DropPath(a.drop_path_rates)
        self.layers = nn.CellList([_build_stage(a, i) for i in range(len(self.depths))])

    def __deepcopy__(self, memo: dict) -> MSGBackbone:
        """Return a copy with its own parameters, which compiles its own graphs."""
        new = type(self).__new__(type(self))
        memo[id(self)] = new
        new.__setstate__(copy.deepcopy(self._state(), memo))
        new.compile_cache.clear()  # MindSpore would delete the original's graphs with the copy
        return new

    def __copy__(self) -> MSGBackbone:
        """Return a copy that shares parameters and Cells."""
        new = type(self).__new__(type(self))
        new.__setstate__(self._state())
        return new

    def _state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the state that a copy shares: everything except the graphs of its methods."""
        base, attributes = self.__getstate__()
        return base, {**attributes, "_graph_methods": {}}

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Raise PicklingError: MindSpore's operators can't be pickled."""
        raise pickle.PicklingError(
            f"{type(self).__name__} can't be pickled, because MindSpore's operators can't: save its parameters with "
            "mindspore.save_checkpoint, and load them into a new model"
        )

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters without weight decay, apart from vectors; mindcv's optimizers ask for them."""
        return {parameter.name for parameter in self.trainable_params() if is_no_decay(parameter.name)}

    def group_matcher(self, coarse: bool = False) -> Callable[[str], tuple[float, ...]]:
        """Return the function from a parameter's name to its layer's key, as timm's and mindcv's optimizers accept it.

        Args:
            coarse: Count a stage as one layer.
        """
        coarse = switch("coarse", coarse)
        return lambda name: layer_key(name, coarse)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Save memory in training: keep only the blocks' inputs, and recompute the rest in the backward pass.

        Graphs that are compiled already, such as those of a training step, do not change.
        """
        enable = switch("enable", enable)
        for stage in self.layers:
            for block in stage.blocks:
                set_recompute(block, enable)
        self.forget_graphs()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the outputs of ``construct``; raise UserError for inputs of other kinds."""
        noise = args[1] if len(args) > 1 else kwargs.get("drop_path_noise")
        if noise is not None:
            check_noise(noise, sum(self.depths), as_images(args[0] if args else kwargs.get("x")).shape[0])
        return super().__call__(*args, **kwargs)

    def checked_inputs(self, x: Any, drop_path_noise: Any = None) -> tuple[Tensor, Tensor | None]:
        """Return the arguments of ``construct`` as Tensors; raise UserError if they are none."""
        x = as_images(x)
        check_noise(drop_path_noise, sum(self.depths), x.shape[0])
        return x, drop_path_noise

    def embed(self, x: Tensor, geometry: StageGeometry) -> Tensor:
        """Return the patch tokens in windows, each window with its MSG token in front.

        Args:
            x: Images (B, in_chans, height, width).
            geometry: The first stage's geometry for these images.

        Returns:
            Tokens (B*R, G, N, C).
        """
        batch = x.shape[0]
        # The region comes from the geometry, so that the graph cannot be built before the image size is checked.
        height, width, region = geometry
        if self.patch_embed.with_messages and self.absolute_pos_embed is None:
            return self.patch_embed.tokens(x, self.msg_tokens, region)
        x = self.patch_embed.windows(x, self.window_size, region)
        regions, windows, _, channels = x.shape
        if self.absolute_pos_embed is not None:
            table = self.absolute_pos_embed.reshape(1, height, width, channels).astype(x.dtype)
            table = window_partition(table, self.window_size, region)
            x = (x.reshape(batch, -1) + table.reshape(1, -1)).reshape(x.shape)
        x = self.pos_drop(x)
        messages = ops.broadcast_to(self.msg_tokens.astype(x.dtype), (regions, windows, 1, channels))
        return ops.cat((messages, x), 2)

    def walk_stages(
        self, x: Tensor, drop_path_noise: Tensor | None = None, msg_only: bool = False
    ) -> tuple[tuple, tuple, tuple]:
        """Run all stages and return their tokens before and after the patch merging.

        Args:
            x: Images (B, in_chans, height, width), of any size that windows and regions fit.
            drop_path_noise: Uniform numbers in [0, 1), float32 (blocks, 2, B), for stochastic depth in training. They
                make its randomness the caller's. If None, the device draws them.
            msg_only: Return only the first tokens of the last stage's windows, the MSG token and perhaps others, and
                save the time for the rest.

        Returns:
            Three tuples. The first has every stage's ``StageGeometry`` and a None at the end. The second has
            every stage's tokens (B*R, G, N, C) after its blocks, in its own geometry. The third has them after the
            merging, in the geometry of the next stage.

        Raises:
            UserError: If the image does not fit the model.
        """
        batch, channels, height, width = x.shape
        ape_size = None if self.absolute_pos_embed is None else self.img_size
        geometry = _run_time_geometry(
            (height, width, channels), self.in_chans, self.patch_size, self.window_size, self.shuffle_size, ape_size
        )
        x = self.embed(x, geometry[0])
        scales = self.drop_path(batch, drop_path_noise)
        before: tuple[Tensor, ...] = ()
        after: tuple[Tensor, ...] = ()
        first = 0
        for i, stage in enumerate(self.layers):
            last = first + self.depths[i]
            is_last = i == len(self.layers) - 1
            tokens = stage.run_blocks(x, None if scales is None else scales[first:last], msg_only and is_last)
            x = stage.merge(tokens, geometry[i], geometry[i + 1])
            before, after, first = (*before, tokens), (*after, x), last
        return geometry, before, after

    def forward_stages(
        self, x: Tensor, drop_path_noise: Tensor | None = None, msg_only: bool = False
    ) -> tuple[Tensor, ...]:
        """Return every stage's tokens after its patch merging: (B*R, G, N, C) in the geometry of the next stage.

        Arguments and errors are those of ``walk_stages``.
        """
        return self.walk_stages(x, drop_path_noise, msg_only)[2]

    def flops(self) -> float:
        """Return the multiply-adds for one image of ``img_size``, counted as in the paper's code."""
        height, width, _ = self.geometry[0]
        total: float = height * width * self.dims[0] * (self.in_chans * EMBED_KERNEL**2 + int(self.patch_norm))
        for (height, width, _), dim, depth in zip(self.geometry, self.dims, self.depths, strict=True):
            windows = height * width // self.window_size**2
            total += depth * self._block_flops(windows, dim)
            if dim != self.num_features:
                merged = height * width // 4 + windows // 4
                total += (height * width + windows) * dim + merged * 9 * dim * 2 * dim
        return total

    def _block_flops(self, windows: int, dim: int) -> float:
        tokens = self.window_size**2 + 1
        attention = tokens * dim * 3 * dim + 2 * tokens * tokens * dim + tokens * dim * dim
        return windows * (2 * tokens * dim + attention + 2 * tokens * dim * dim * self.mlp_ratio)


def _build_stage(a: Architecture, i: int) -> Stage:
    settings = (a.window_size, a.mlp_ratio, a.qkv_bias, a.qk_scale, a.drop_rate, a.attn_drop_rate, a.shuffles[i])
    blocks = [MSGBlock(a.dims[i], a.num_heads[i], *settings) for _ in range(a.depths[i])]
    return Stage(blocks, PatchMerging(a.dims[i], a.window_size) if i + 1 < len(a.depths) else None)


def _token_parameter(name: str, shape: tuple[int, ...]) -> Parameter:
    return Parameter(initializer(truncated_normal(), shape), name=name)


@constexpr
def _run_time_geometry(image, in_chans, patch_size, window_size, shuffle_size, ape_size):
    """Return the stages' geometry for the image at hand and a last None; runs while the graph is compiled."""
    height, width, channels = image
    if channels != in_chans:
        raise UserError(f"the input has {channels} channels, but the model has in_chans={in_chans}")
    if ape_size is not None and (height, width) != tuple(ape_size):
        raise UserError(f"the input is {height} x {width}, but with ape=True only img_size={tuple(ape_size)} fits")
    return (*stage_geometry(height, width, patch_size, window_size, shuffle_size), None)
