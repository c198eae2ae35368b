"""The maps that a backbone can return: their description, and their choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import UserError, shown
from .arguments import whole_number, whole_numbers


class FeatureInfo(list):
    """A dictionary for each map, with the keys and methods of timm's ``FeatureInfo`` and the keys of mindcv.

    Attributes:
        out_indices: The stages of the maps.

    Args:
        dims: Channels of every stage.
        patch_size: Side of a patch token in pixels.
        out_indices: The stages whose maps are described.
    """

    def __init__(self, dims: Sequence[int], patch_size: int, out_indices: Sequence[int]):
        self.out_indices = tuple(out_indices)
        for i in self.out_indices:
            name, reduction = f"layers.{i}", patch_size * 2**i
            self.append(dict(chs=dims[i], reduction=reduction, name=name, num_chs=dims[i], module=name, index=i))

    def __deepcopy__(self, memo: dict) -> FeatureInfo:
        """Return the same object: it does not change."""
        return self

    def channels(self, idx: int | Sequence[int] | None = None) -> Any:
        """Return the channels of the maps; of one stage or several if ``idx`` names them."""
        return self.get("num_chs", idx)

    def reduction(self, idx: int | Sequence[int] | None = None) -> Any:
        """Return the strides of the maps in pixels; of one stage or several if ``idx`` names them."""
        return self.get("reduction", idx)

    def module_name(self, idx: int | Sequence[int] | None = None) -> Any:
        """Return the names of the stages; of one stage or several if ``idx`` names them."""
        return self.get("module", idx)

    def get(self, key: str, idx: int | Sequence[int] | None = None) -> Any:
        """Return a property of all maps, or of those of the stage or stages ``idx``.

        Raises:
            UserError: If there is no such property or map.
        """
        if not self or key not in self[0]:
            raise UserError(f"key={shown(key)}: must be one of {', '.join(self[0] if self else ())}")
        if idx is None:
            return [info[key] for info in self]
        if isinstance(idx, list | tuple):
            return [self.get(key, i) for i in idx]
        stage = whole_number("idx", idx)
        if stage not in self.out_indices:
            raise UserError(f"idx={stage}: must be a stage with a map, one of {list(self.out_indices)}")
        return self[self.out_indices.index(stage)][key]


def take_indices(stages: int, indices: Any) -> tuple[int, ...]:
    """Return the stages that ``indices`` selects, in rising order, by timm's rule.

    Args:
        stages: Number of stages.
        indices: None for all, a number for the last ones, or a list of stages, where -1 is the last one.

    Raises:
        UserError: If there is no such stage.
    """
    if indices is None:
        return tuple(range(stages))
    if not isinstance(indices, list | tuple):
        count = whole_number("indices", indices, 1, stages)
        return tuple(range(stages - count, stages))
    wanted = whole_numbers("indices", indices)
    if not wanted or not all(-stages <= i < stages for i in wanted):
        raise UserError(f"indices={list(wanted)}: must be stages from 0 to {stages - 1}, or from -{stages} to -1")
    return tuple(sorted({i % stages for i in wanted}))
