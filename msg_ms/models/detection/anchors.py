"""Anchors of the region proposal network: those of ``msg_ms.boxes.anchors``, for the modules here."""

from ...boxes.anchors import (
    RATIOS,
    SCALE,
    STRIDES,
    base_anchors,
    grid_anchors,
    inside_flags,
    level_shapes,
    valid_flags,
)

__all__ = [
    "RATIOS",
    "SCALE",
    "STRIDES",
    "base_anchors",
    "grid_anchors",
    "inside_flags",
    "level_shapes",
    "valid_flags",
]
