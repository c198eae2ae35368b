"""The training targets of the region proposal network for the anchors of a canvas."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import native
from .anchor_assigner import RPN_RULE, AssignRule, assign_anchors
from .anchor_sampler import sampled_targets
from .anchors import RATIOS, SCALE, STRIDES, grid_anchors, inside_flags, level_shapes
from .batches import RpnTargets


class AnchorGrid:
    """The anchors of a canvas, and their assignment to ground-truth boxes.

    Anchors of one level and ratio form a grid of equal boxes, so those near a ground-truth box are a rectangle of it.
    Native code compares only these. Without a compiler ``assign_anchors`` does the same, bit for bit.

    Args:
        height: Height of the canvas in pixels.
        width: Width of the canvas in pixels.
        strides: Pixels per cell of each level.
        ratios: Height / width of each anchor.
        scale: Side of a square anchor in strides.

    Attributes:
        anchors: All anchors, float32 (A, 4), as ``grid_anchors`` returns them.
    """

    def __init__(
        self,
        height: int,
        width: int,
        strides: Sequence[int] = STRIDES,
        ratios: Sequence[float] = RATIOS,
        scale: float = SCALE,
    ):
        shapes = level_shapes(height, width, strides)
        levels = grid_anchors(shapes, strides, ratios, scale)
        self.anchors, grids, first = np.concatenate(levels), [], 0
        for level, (rows, columns) in zip(levels, shapes, strict=True):
            grids += [(first, rows, columns, ratio, len(ratios)) for ratio in range(len(ratios))]
            first += len(level)
        self.table = np.array(grids, np.int64)

    def assign(self, gt: np.ndarray, img_shape: Sequence[int], rule: AssignRule = RPN_RULE) -> np.ndarray:
        """Assign the anchors inside an image to its ground-truth boxes.

        Args:
            gt: (G, 4), float32, without padding.
            img_shape: Height and width of the image without padding.
            rule: The thresholds, with ``low_quality``.

        Returns:
            (A,), int32: as ``assign_anchors`` returns it, and -1 for anchors that are not inside the image.
        """
        gt = np.ascontiguousarray(gt, np.float32)
        thresholds = (rule.positive, rule.negative, rule.min_positive)
        assigned = native.assign_anchors(self.anchors, self.table, gt, img_shape, *thresholds)
        if assigned is None:
            inside = inside_flags(self.anchors, img_shape)
            assigned = np.full(len(self.anchors), -1, np.int32)
            assigned[inside] = assign_anchors(self.anchors[inside], gt, rule)[0]
        return assigned

    def targets(
        self,
        gt: np.ndarray,
        img_shape: Sequence[int],
        rng: np.random.Generator,
        count: int = 256,
        positives: int = 128,
        rule: AssignRule = RPN_RULE,
    ) -> RpnTargets:
        """Assign and sample the anchors inside an image; see ``assign`` and ``sampled_targets``."""
        return sampled_targets(self.anchors, self.assign(gt, img_shape, rule), gt, rng, count, positives)
