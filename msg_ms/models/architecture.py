"""Whether a model's arguments can be, and fit each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import UserError

if TYPE_CHECKING:
    from .msg_transformer import MSGTransformer

EMBED_KERNEL, EMBED_PADDING = 7, 2  # the overlapped patch embedding's


def check_architecture(
    net: MSGTransformer, num_heads: tuple[int, ...], manip_type: str, rates: tuple[float, float, float]
) -> None:
    """Raise UserError for the first argument that can't be, or doesn't fit the others."""
    stages = len(net.depths)
    for name, values in (
        ("depths", net.depths),
        ("num_heads", num_heads),
        ("shuffle_size", net.shuffle_size),
    ):
        if stages == 0 or len(values) != stages or any(v < 1 for v in values):
            raise UserError(
                f"{name}={list(values)}: one entry of at least 1 per stage, as many as depths={list(net.depths)}"
            )
    for name, value, least in (
        ("patch_size", net.patch_size, EMBED_KERNEL - 2 * EMBED_PADDING),
        ("in_chans", net.in_chans, 1),
        ("num_classes", net.num_classes, 0),
        ("embed_dim", net.dims[0], 1),
        ("window_size", net.window_size, 1),
    ):
        if value < least:
            raise UserError(f"{name}={value}: must be at least {least}")
    for name, rate in zip(("drop_rate", "attn_drop_rate", "drop_path_rate"), rates, strict=True):
        if not 0 <= rate < 1:
            raise UserError(f"{name}={rate}: must be at least 0 and below 1")
    if manip_type not in ("shuf", "none"):
        raise UserError(f"manip_type={manip_type!r}: must be 'shuf' or 'none'")
    for i, (dim, heads, size) in enumerate(zip(net.dims, num_heads, net.shuffle_size, strict=True)):
        if dim % heads:
            fitting = [h for h in range(1, dim + 1) if dim % h == 0]
            nearest = sorted(fitting, key=lambda h: abs(h - heads))[:2]
            raise UserError(f"num_heads[{i}]={heads} doesn't divide the {dim} channels of stage {i}; {nearest} would")
        if manip_type == "shuf" and dim % size**2:
            need = next(e for e in range(net.dims[0], net.dims[0] + size**2 + 1) if e * 2**i % size**2 == 0)
            raise UserError(
                f"shuffle_size[{i}]={size}: its {size**2} message groups don't divide the {dim} channels of "
                f"stage {i}; embed_dim={need} would, and so would a region size whose square divides {dim}"
            )
