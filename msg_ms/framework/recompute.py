"""Switch the recomputation of a Cell in the backward pass on and off."""

from __future__ import annotations

from mindspore import nn

_SCOPE = "recompute_"  # MindSpore's prefix of the names of recomputed operators


def set_recompute(cell: nn.Cell, enable: bool) -> None:
    """Keep only the input and output of a Cell for the backward pass and recompute the rest, or stop doing so.

    ``Cell.recompute`` can't be switched off (MindSpore 2.10.0). It sets the attributes that are reset here.

    Args:
        cell: The Cell; none of its sub-cells may be set to recompute by itself.
        enable: Whether to recompute.
    """
    if enable:
        cell.recompute()
        return
    cell._recompute_cell = None
    for flags in (cell.__dict__, getattr(cell, "_func_graph_flags", {})):
        flags.pop("output_recompute", None)
    for _, inner in cell.cells_and_names():
        inner._has_config_recompute = False
        if (inner._scope or "").startswith(_SCOPE):
            inner._scope = inner._scope.removeprefix(_SCOPE) or None
