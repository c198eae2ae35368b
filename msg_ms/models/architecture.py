"""The arguments that define a backbone, their defaults and their validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from ..errors import UserError, shown
from .arguments import number, switch, whole_number, whole_numbers
from .windows import StageGeometry, fitting_size, stage_geometry

EMBED_KERNEL, EMBED_PADDING = 7, 2  # of the overlapped patch embedding, in pixels
MOST_STAGES, LARGEST_SIDE = 16, 2**14
# The largest values of the arguments, beyond any machine: larger ones are mistakes.
LARGEST = {
    # The index of relative positions has window_size**4 entries.
    **dict(patch_size=1024, in_chans=1024, embed_dim=2**14, window_size=64),
    **dict(depths=1000, num_heads=1024, shuffle_size=1024),
}


@dataclass(frozen=True)
class Architecture:
    """The arguments of ``msg_ms.MSGTransformer`` except ``num_classes``, with the defaults of the paper's code."""

    img_size: int | tuple[int, int] = 224
    patch_size: int = 4
    in_chans: int = 3
    embed_dim: int = 96
    depths: Sequence[int] = (2, 2, 6, 2)
    num_heads: Sequence[int] = (3, 6, 12, 24)
    window_size: int = 7
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    qk_scale: float | None = None
    drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    drop_path_rate: float = 0.1
    ape: bool = False
    patch_norm: bool = True
    shuffle_size: Sequence[int] = (4, 4, 2, 1)
    manip_type: str = "shuf"

    def __post_init__(self):
        values: dict[str, Any] = {"img_size": _image_size(self.img_size)}
        for name in ("patch_size", "in_chans", "embed_dim", "window_size"):
            values[name] = whole_number(name, getattr(self, name), most=LARGEST[name])
        for name in ("depths", "num_heads", "shuffle_size"):
            values[name] = whole_numbers(name, getattr(self, name), LARGEST[name])
            if len(values[name]) > MOST_STAGES:
                raise UserError(f"{name}={shown(values[name])}: must have at most {MOST_STAGES} entries")
        for name in ("mlp_ratio", "drop_rate", "attn_drop_rate", "drop_path_rate"):
            values[name] = number(name, getattr(self, name))
        for name in ("qkv_bias", "ape", "patch_norm"):
            values[name] = switch(name, getattr(self, name))
        if self.qk_scale is not None and number("qk_scale", self.qk_scale) <= 0:
            raise UserError(f"qk_scale={self.qk_scale}: must be above 0, or None")
        if not isinstance(self.manip_type, str) or self.manip_type not in ("shuf", "none"):
            raise UserError(f"manip_type={shown(self.manip_type)}: must be 'shuf' or 'none'")
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def image_sides(self) -> tuple[int, int]:
        """Height and width of the image in pixels."""
        height, width = (self.img_size, self.img_size) if isinstance(self.img_size, int) else self.img_size
        return height, width

    @property
    def dims(self) -> tuple[int, ...]:
        """Channels of every stage."""
        return tuple(self.embed_dim * 2**i for i in range(len(self.depths)))

    @property
    def shuffles(self) -> tuple[bool, ...]:
        """Whether each stage shuffles its MSG tokens."""
        return tuple(self.manip_type == "shuf" and size > 1 for size in self.shuffle_size)

    @property
    def drop_path_rates(self) -> list[float]:
        """The stochastic-depth probability of every block, which grows linearly from 0."""
        return np.linspace(0, self.drop_path_rate, sum(self.depths)).tolist()

    @property
    def geometry(self) -> tuple[StageGeometry, ...]:
        """Return the geometry of every stage for ``img_size``; raise UserError if it does not fit."""
        return stage_geometry(*self.image_sides, self.patch_size, self.window_size, tuple(self.shuffle_size))

    def first_stages(self, count: int) -> Architecture:
        """Return the architecture of a model that ends after ``count`` stages, with the same blocks up to there."""
        check_stage_counts(self.depths, self.num_heads, self.shuffle_size)
        blocks, remaining = sum(self.depths), sum(self.depths[:count])
        # Stochastic depth grows up to the last block of the whole model.
        share = (remaining - 1) / (blocks - 1) if blocks > 1 else 1.0
        return replace(
            self,
            depths=tuple(self.depths[:count]),
            num_heads=tuple(self.num_heads[:count]),
            shuffle_size=tuple(self.shuffle_size[:count]),
            drop_path_rate=self.drop_path_rate * share,
        )

    def padded(self) -> Architecture:
        """Return the architecture with ``img_size`` rounded up to the next size that windows and regions fit."""
        size = fitting_size(*self.image_sides, self.patch_size, self.window_size, tuple(self.shuffle_size))
        return replace(self, img_size=size)

    def check(self) -> None:
        """Raise UserError for the first argument that is out of range or does not fit the others."""
        check_stage_counts(self.depths, self.num_heads, self.shuffle_size)
        for name, least in (
            ("patch_size", EMBED_KERNEL - 2 * EMBED_PADDING),
            ("in_chans", 1),
            ("embed_dim", 1),
            ("window_size", 1),
        ):
            check_at_least(name, getattr(self, name), least)
        for name in ("drop_rate", "attn_drop_rate", "drop_path_rate"):
            rate = getattr(self, name)
            if not 0 <= rate < 1:
                raise UserError(f"{name}={rate}: must be at least 0 and below 1")
        if not 1e-4 <= self.mlp_ratio <= 64 or int(self.embed_dim * self.mlp_ratio) < 1:
            raise UserError(f"mlp_ratio={self.mlp_ratio}: must leave at least one channel, and be at most 64")
        for i, (dim, heads, size) in enumerate(zip(self.dims, self.num_heads, self.shuffle_size, strict=True)):
            check_heads(i, dim, heads)
            if self.manip_type == "shuf":
                check_region(i, dim, size, self.embed_dim)


ARGUMENTS = tuple(field.name for field in fields(Architecture))


def _image_size(value: object) -> int | tuple[int, int]:
    """Return a valid ``img_size``; raise UserError otherwise."""
    if not isinstance(value, list | tuple):
        return whole_number("img_size", value, 1, LARGEST_SIDE)
    if len(value) != 2:
        raise UserError(f"img_size={shown(value)}: must be a whole number, or (height, width)")
    height, width = (whole_number(f"img_size[{i}]", side, 1, LARGEST_SIDE) for i, side in enumerate(value))
    return height, width


def check_stage_counts(depths: Sequence[int], num_heads: Sequence[int], shuffle_size: Sequence[int]) -> None:
    """Raise UserError unless every argument has one positive entry per stage."""
    stages = len(depths)
    for name, values in (("depths", depths), ("num_heads", num_heads), ("shuffle_size", shuffle_size)):
        if stages == 0 or len(values) != stages or any(v < 1 for v in values):
            raise UserError(
                f"{name}={list(values)}: must have one entry of at least 1 per stage, as many as depths={list(depths)}"
            )


def check_at_least(name: str, value: int, least: int) -> None:
    """Raise UserError if ``value`` is below ``least``."""
    if value < least:
        raise UserError(f"{name}={value}: must be at least {least}")


def check_heads(stage: int, dim: int, heads: int) -> None:
    """Raise UserError unless the attention heads divide the channels of a stage; name the nearest numbers that do."""
    if dim % heads:
        divisors = [h for h in range(1, dim + 1) if dim % h == 0]
        nearest = sorted(divisors, key=lambda h: abs(h - heads))[:2]
        raise UserError(
            f"num_heads[{stage}]={heads} doesn't divide the {dim} channels of stage {stage}; {nearest} would"
        )


def check_region(stage: int, dim: int, size: int, embed_dim: int) -> None:
    """Raise UserError unless the channels of a stage's MSG tokens can be shuffled in regions of ``size`` x ``size``."""
    if dim % size**2:
        need = next(e for e in range(embed_dim, embed_dim + size**2 + 1) if e * 2**stage % size**2 == 0)
        raise UserError(
            f"shuffle_size[{stage}]={size}: its {size**2} channel groups don't divide the {dim} channels of "
            f"stage {stage}; embed_dim={need} would, and so would a region size whose square divides {dim}"
        )
