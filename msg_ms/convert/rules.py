"""The name table between the paper's PyTorch code and this package: data, read in both directions.

Each row pairs a template of a PyTorch name with one of ours; ``{i}`` and ``{j}`` stand for numbers and mean the
same on both sides. Every parameter has the same shape and layout in both, so a row moves values untouched; what
differs is the name of LayerNorm's pair. The first row that fits a name takes it.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..models.attention import relative_position_index


@dataclass(frozen=True)
class Rule:
    """Rename ``torch`` to ``ours`` and back."""

    torch: str
    ours: str


@dataclass(frozen=True)
class Drop:
    """A PyTorch buffer that has no counterpart here: left out on purpose, and rebuilt on the way back.

    ``rebuild`` makes it from the array that our name ``source`` holds, ``shape`` tells its shape alone.
    """

    torch: str
    source: str
    why: str
    rebuild: Callable[[np.ndarray], np.ndarray]
    shape: Callable[[np.ndarray], tuple[int, ...]]


def _window_of_table(table: np.ndarray) -> int:
    """The window's side from its bias table ((2w-1)**2, heads)."""
    return (math.isqrt(table.shape[0]) + 1) // 2


def _index_of_table(table: np.ndarray) -> np.ndarray:
    return _index_of_window(_window_of_table(table))


@functools.lru_cache(maxsize=4)
def _index_of_window(window: int) -> np.ndarray:
    return relative_position_index(window).astype(np.int64)


def _same(name: str) -> Rule:
    return Rule(name, name)


def _pair(name: str) -> tuple[Rule, Rule]:
    return _same(f"{name}.weight"), _same(f"{name}.bias")


def _norm(name: str) -> tuple[Rule, Rule]:
    return Rule(f"{name}.weight", f"{name}.gamma"), Rule(f"{name}.bias", f"{name}.beta")


_BLOCK = "layers.{i}.blocks.{j}"

RULES: tuple[Rule | Drop, ...] = (
    _same("msg_tokens"),
    _same("absolute_pos_embed"),
    *_pair("patch_embed.proj"),
    *_norm("patch_embed.norm"),
    *_norm(f"{_BLOCK}.norm1"),
    *_norm(f"{_BLOCK}.norm2"),
    _same(f"{_BLOCK}.attn.relative_position_bias_table"),
    _same(f"{_BLOCK}.attn.rel_pos_msg"),
    Drop(
        f"{_BLOCK}.attn.relative_position_index",
        source=f"{_BLOCK}.attn.relative_position_bias_table",
        why="follows from the window size",
        rebuild=_index_of_table,
        shape=lambda table: (_window_of_table(table) ** 2,) * 2,
    ),
    *_pair(f"{_BLOCK}.attn.qkv"),
    *_pair(f"{_BLOCK}.attn.proj"),
    *_pair(f"{_BLOCK}.mlp.fc1"),
    *_pair(f"{_BLOCK}.mlp.fc2"),
    *_pair("layers.{i}.downsample.reduction"),
    *_norm("layers.{i}.downsample.norm"),
    *_norm("norm"),
    *_pair("head"),
)


def match(template: str, name: str) -> dict[str, str] | None:
    """The numbers that make ``template`` the given ``name``, or None where it doesn't fit."""
    found = _pattern(template).fullmatch(name)
    return found.groupdict() if found else None


@functools.cache
def _pattern(template: str) -> re.Pattern:
    return re.compile(re.sub(r"\\{(\w)\\}", r"(?P<\1>0|[1-9][0-9]*)", re.escape(template)))
