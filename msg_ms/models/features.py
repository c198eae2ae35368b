"""The stages as feature maps, for detection, segmentation and other models on top of a backbone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mindspore import Tensor
from mindspore.ops import constexpr

from ..errors import UserError
from ..ops import pad_axis
from .architecture import ARGUMENTS, Architecture
from .arguments import only_known, switch, whole_numbers
from .backbone import MSGBackbone
from .feature_info import FeatureInfo
from .layers import LayerNorm
from .windows import fitting_size, window_reverse


class FeatureBackbone(MSGBackbone):
    """A backbone whose outputs are the stages' maps: it has no place for a classifier's norm and head."""

    def add_output_norms(self, stages: Iterable[int]) -> None:
        """Add a LayerNorm ``norm<stage>`` for the map of each of these stages."""
        for i in stages:
            # Swin Transformer's names, which are attributes and not a list.
            setattr(self, f"norm{i}", LayerNorm(self.dims[i]))

    @property
    def output_norms(self) -> tuple[str, ...]:
        """Prefixes of the output norms' parameter names, which a classifier's checkpoint lacks."""
        return tuple(f"norm{i}." for i in range(len(self.layers)))

    def ignores(self, name: str) -> bool:
        """Return whether the backbone has no place for a classifier's parameter: its norm and head.

        Args:
            name: The parameter's name in the classifier, without a prefix.
        """
        return name.split(".")[0] in ("norm", "head")


class MSGFeatures(FeatureBackbone):
    """Backbone: images (B, in_chans, height, width) -> a map (B, C_i, H_i, W_i) for each stage i of ``out_indices``.

    A map holds the patch tokens after the stage's last block, before the patch merging. C_i is ``embed_dim * 2**i``.
    H_i and W_i are height and width over ``patch_size * 2**i``, rounded up. Parameters have the classifier's names, so
    a classifier's checkpoint fits. Stages after the last one in ``out_indices`` are not built.

    Args:
        out_indices: The stages to return, in rising order from 0; None means all.
        out_norm: Normalise the tokens of every map by an extra LayerNorm, ``norm<stage>``, as Swin Transformer's
            detection backbones do. The classifier's ``norm`` is not used.
        pad: Accept images of any size. Zeros are added at the right and at the bottom up to the next size that windows
            and regions fit (multiples of 224 pixels for the paper's models with all stages), and the maps are cropped.
            Without it such an image raises UserError, which names sizes that fit. If nothing needs padding, both
            settings return the same.
        num_classes: Ignored, so that a classifier's arguments can be passed.
        arguments: The other arguments of ``msg_ms.MSGTransformer``.

    Attributes:
        feature_info: For every map its channels ``num_chs``, its stride ``reduction`` in pixels, and its stage, the
            ``module``, with timm's methods ``channels()``, ``reduction()`` and ``module_name()``. mindcv's names of the
            keys are there, too: ``chs`` and ``name``.
        out_channels: The channels alone, as in mindcv's backbones.

    Raises:
        UserError: If an argument is out of range or does not fit the others.
    """

    def __init__(
        self,
        out_indices: Sequence[int] | None = None,
        out_norm: bool = False,
        pad: bool = True,
        *,
        num_classes: int = 0,
        **arguments: Any,
    ):
        only_known("MSGFeatures", arguments, ARGUMENTS)
        architecture = Architecture(**arguments)
        stages = len(architecture.depths)
        out_norm, pad = switch("out_norm", out_norm), switch("pad", pad)
        outputs = tuple(range(stages)) if out_indices is None else whole_numbers("out_indices", out_indices)
        if not outputs or list(outputs) != sorted(set(outputs) & set(range(stages))):
            raise UserError(f"out_indices={list(outputs)}: must be stages in rising order, of 0 to {stages - 1}")
        architecture = architecture.first_stages(outputs[-1] + 1)
        if pad:
            architecture.check()
            architecture = architecture.padded()
        super().__init__(architecture)
        self.pad, self.out_indices, self.out_norm = pad, outputs, out_norm
        self.feature_info = FeatureInfo(self.dims, self.patch_size, outputs)
        if out_norm:
            self.add_output_norms(outputs)

    @property
    def out_channels(self) -> list[int]:
        """Channels of every map."""
        return self.feature_info.channels()

    def ignores(self, name: str) -> bool:
        """Return whether the backbone has no place for a classifier's parameter: its norm, head or a later stage."""
        path, last = name.split("."), len(self.layers) - 1
        later = path[0] == "layers" and path[1].isdigit() and int(path[1]) > last
        return later or path[:3] == ["layers", str(last), "downsample"] or super().ignores(name)

    def construct(self, x: Tensor, drop_path_noise: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return the feature maps.

        Args:
            x: Images (B, in_chans, height, width).
            drop_path_noise: See ``walk_stages``.

        Returns:
            A map (B, C_i, H_i, W_i) for each stage of ``out_indices``.

        Raises:
            UserError: If the image does not fit the model.
        """
        height, width = x.shape[2:]
        if self.pad:
            bottom, right = _padding(height, width, self.patch_size, self.window_size, self.shuffle_size)
            x = pad_axis(pad_axis(x, 2, 0, bottom), 3, 0, right)
        geometry, tokens, _ = self.walk_stages(x, drop_path_noise)
        maps: tuple[Tensor, ...] = ()
        for i in self.out_indices:
            stride = self.patch_size * 2**i
            patches = tokens[i][:, :, 1:]
            if self.out_norm:
                patches = getattr(self, f"norm{i}")(patches)
            rows, columns, region = geometry[i]
            patches = window_reverse(patches, self.window_size, region, rows, columns, channels_first=True)
            maps = (*maps, patches[:, :, : -(-height // stride), : -(-width // stride)])
        return maps


@constexpr
def _padding(height, width, patch_size, window_size, shuffle_size):
    """Return the rows and columns that an image needs; runs while the graph is compiled."""
    rows, columns = fitting_size(height, width, patch_size, window_size, shuffle_size)
    return rows - height, columns - width
