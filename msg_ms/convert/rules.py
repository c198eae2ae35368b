"""The name table between the paper's PyTorch code and this package, used in both directions.

Each row pairs a template of a PyTorch name with one of ours; ``{i}`` and ``{j}`` are numbers, equal on both sides. The
first row that matches a name applies. Every parameter has the same shape and layout in both packages, so values are
not changed. Only the names of LayerNorm's two parameters differ.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..checkpoint.types import ConversionError
from ..models.attention import relative_position_index


@dataclass(frozen=True)
class Rule:
    """Rename ``torch`` to ``ours`` and back."""

    torch: str
    ours: str


@dataclass(frozen=True)
class Drop:
    """Leave out a PyTorch buffer that has no counterpart here, and rebuild it on the way back.

    Attributes:
        torch: Template of the buffer's name.
        source: Template of our parameter that the buffer is computed from.
        reason: Why the buffer is not needed, to complete "the value ...".
        rebuild: Computes the buffer from the parameter's array.
        shape: Computes the buffer's shape alone, which is cheap for any array.
        compare: Whether a buffer in a file must equal the rebuilt one.
    """

    torch: str
    source: str
    reason: str
    rebuild: Callable[[np.ndarray], np.ndarray]
    shape: Callable[[np.ndarray], tuple[int, ...]]
    compare: bool = True


def _window_size(table: np.ndarray) -> int:
    """Return the side w of the window from its bias table of shape ((2w-1)**2, heads)."""
    if table.ndim != 2:
        raise ConversionError(f"relative_position_bias_table is {table.shape}, expected 2 dimensions")
    return (math.isqrt(table.shape[0]) + 1) // 2


def _position_index(table: np.ndarray) -> np.ndarray:
    return _position_index_of_window(_window_size(table))


@functools.lru_cache(maxsize=4)
def _position_index_of_window(window: int) -> np.ndarray:
    return relative_position_index(window).astype(np.int64)


def _unchanged(name: str) -> Rule:
    return Rule(name, name)


def _weight_and_bias(name: str) -> tuple[Rule, Rule]:
    return _unchanged(f"{name}.weight"), _unchanged(f"{name}.bias")


def _norm(name: str) -> tuple[Rule, Rule]:
    return Rule(f"{name}.weight", f"{name}.gamma"), Rule(f"{name}.bias", f"{name}.beta")


_BLOCK = "layers.{i}.blocks.{j}"

RULES: tuple[Rule | Drop, ...] = (
    _unchanged("msg_tokens"),
    _unchanged("absolute_pos_embed"),
    *_weight_and_bias("patch_embed.proj"),
    *_norm("patch_embed.norm"),
    *_norm(f"{_BLOCK}.norm1"),
    *_norm(f"{_BLOCK}.norm2"),
    _unchanged(f"{_BLOCK}.attn.relative_position_bias_table"),
    _unchanged(f"{_BLOCK}.attn.rel_pos_msg"),
    Drop(
        f"{_BLOCK}.attn.relative_position_index",
        source=f"{_BLOCK}.attn.relative_position_bias_table",
        reason="computed from the window size",
        rebuild=_position_index,
        shape=lambda table: (_window_size(table) ** 2,) * 2,
    ),
    *_weight_and_bias(f"{_BLOCK}.attn.qkv"),
    *_weight_and_bias(f"{_BLOCK}.attn.proj"),
    *_weight_and_bias(f"{_BLOCK}.mlp.fc1"),
    *_weight_and_bias(f"{_BLOCK}.mlp.fc2"),
    *_weight_and_bias("layers.{i}.downsample.reduction"),
    *_norm("layers.{i}.downsample.norm"),
    *_norm("norm"),
    *_weight_and_bias("head"),
)


def match(template: str, name: str) -> dict[str, str] | None:
    """Return the numbers with which ``template`` becomes ``name``, or None if it does not match."""
    matched = _pattern(template).fullmatch(name)
    return matched.groupdict() if matched else None


@functools.cache
def _pattern(template: str) -> re.Pattern:
    return re.compile(re.sub(r"\\{(\w)\\}", r"(?P<\1>0|[1-9][0-9]*)", re.escape(template)))
