"""The stages as feature maps, for detection, segmentation and whatever else builds on a backbone."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from mindspore import Tensor, nn, ops
from mindspore.ops import constexpr

from ..errors import UserError
from .layers import LayerNorm
from .msg_transformer import MSGTransformer
from .windows import fitting_size, window_reverse

_DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(MSGTransformer.__init__).parameters.items()
    if name != "self"
}


class MSGFeatures(MSGTransformer):
    """Images (B, in_chans, height, width) -> a map (B, C_i, H_i, W_i) for each stage i of ``out_indices``.

    A map holds the stage's patch tokens as its last block leaves them, before the merging; C_i is
    ``embed_dim * 2**i``, H_i and W_i are the image's sides over ``patch_size * 2**i``, rounded up. Parameters have the
    classifier's names, so that its checkpoints fit; stages beyond the last one asked for are not built.

    Args:
        out_indices: the stages, in rising order from 0; None for all.
        out_norm: normalise the tokens of every map by a LayerNorm of its own, ``norm<stage>``, as Swin Transformer's
            detection backbones do. The classifier's ``norm`` has no place here.
        pad: images of any size: zeros at the right and at the bottom up to the next size that windows and regions
            fit (multiples of 224 pixels for the paper's models, all stages), and the maps cut back. Without it such
            an image raises UserError, which names fitting sizes. Where nothing is padded, both are the same.
        arguments: those of :class:`MSGTransformer`; ``num_classes`` has no effect.

    Attributes:
        feature_info: for every map its channels ``chs``, its stride ``reduction`` in pixels, and its stage's ``name``.
        out_channels: the channels alone, as mindcv's backbones give them.
    """

    def __init__(
        self, out_indices: Sequence[int] | None = None, out_norm: bool = False, pad: bool = True, **arguments: Any
    ):
        arguments = {**_DEFAULTS, **arguments, "num_classes": 0}
        stages = len(arguments["depths"])
        outputs = tuple(range(stages)) if out_indices is None else tuple(out_indices)
        if not outputs or list(outputs) != sorted(set(outputs) & set(range(stages))):
            raise UserError(f"out_indices={list(outputs)}: must be stages in rising order, of 0 to {stages - 1}")
        super().__init__(**_without_later_stages(arguments, outputs[-1] + 1, pad))
        self.norm = nn.Identity()
        self.pad, self.out_indices, self.out_norm = pad, outputs, out_norm
        self.feature_info = [
            dict(chs=self.dims[i], reduction=self.patch_size * 2**i, name=f"layers.{i}") for i in outputs
        ]
        if out_norm:
            for i in outputs:
                setattr(self, f"norm{i}", LayerNorm(self.dims[i]))

    @property
    def out_channels(self) -> list[int]:
        return [info["chs"] for info in self.feature_info]

    @property
    def output_norms(self) -> tuple[str, ...]:
        """Prefixes of the parameters of the norms after the stages."""
        return tuple(f"norm{i}." for i in range(len(self.layers)))

    def ignores(self, name: str) -> bool:
        """Whether a classifier's parameter of this name has no place here: its norm, its head, a later stage."""
        path = name.split(".")
        if path[0] == "layers":
            last = len(self.layers) - 1
            return (path[1].isdigit() and int(path[1]) > last) or path[1:3] == [str(last), "downsample"]
        return path[0] in ("norm", "head")

    def construct(self, x: Tensor, draws: Tensor | None = None) -> tuple[Tensor, ...]:
        height, width = x.shape[2:]
        if self.pad:
            bottom, right = _padding(height, width, self.patch_size, self.window_size, self.shuffle_size)
            if bottom + right > 0:
                x = ops.pad(x, (0, right, 0, bottom))
        layouts, tokens, _ = self.walk_stages(x, draws)
        maps = ()
        for i in self.out_indices:
            stride = self.patch_size * 2**i
            patches = tokens[i][:, :, 1:]
            if self.out_norm:
                patches = getattr(self, f"norm{i}")(patches)
            rows, columns, region = layouts[i]
            patches = window_reverse(patches, self.window_size, region, rows, columns, channels_first=True)
            maps = (*maps, patches[:, :, : -(-height // stride), : -(-width // stride)])
        return maps


@constexpr
def _padding(height, width, patch_size, window_size, shuffle_size):
    """Rows and columns that an image lacks; runs while the graph is compiled."""
    rows, columns = fitting_size(height, width, patch_size, window_size, shuffle_size)
    return rows - height, columns - width


def _without_later_stages(arguments: dict[str, Any], stages: int, pad: bool) -> dict[str, Any]:
    """The arguments of a model that ends with stage number ``stages``, its blocks as in the whole one."""
    per_stage = ("depths", "num_heads", "shuffle_size")
    whole = sum(arguments["depths"])
    if any(len(arguments[name]) != len(arguments["depths"]) for name in per_stage):
        return arguments  # to be refused as they are
    arguments = {**arguments, **{name: tuple(arguments[name])[:stages] for name in per_stage}}
    if whole > 1:
        # Stochastic depth grows from the first block to the last of the whole model.
        arguments["drop_path_rate"] *= (sum(arguments["depths"]) - 1) / (whole - 1)
    if pad:
        size = arguments["img_size"]
        sides = (size, size) if isinstance(size, int) else size
        arguments["img_size"] = fitting_size(
            *sides, *(arguments[name] for name in ("patch_size", "window_size", "shuffle_size"))
        )
    return arguments
