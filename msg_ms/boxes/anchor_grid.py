"""The training targets of the region proposal network, without comparing all anchors with all boxes."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

import numpy as np

from . import native
from .anchor_assigner import EPS, RPN_RULE, AssignRule
from .anchor_sampler import sampled_targets
from .anchors import RATIOS, SCALE, STRIDES, grid_anchors, level_shapes
from .batches import RpnTargets

_SLACK = 1e-3  # relative, and in pixels: more than the rounding of single precision


class AnchorGrid:
    """The anchors of a canvas, and their assignment to ground-truth boxes.

    Anchors of one level and ratio form a grid of equal boxes, so those near a ground-truth box are a rectangle of it.
    The results are those of ``rpn_targets`` for all anchors, bit for bit.

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
        self.anchors, self.grids, first = np.concatenate(levels), [], 0
        for level, (rows, columns) in zip(levels, shapes, strict=True):
            cells = level.reshape(rows, columns, len(ratios), 4)
            self.grids += [_Grid(cells[:, :, i], first, i, len(ratios)) for i in range(len(ratios))]
            first += len(level)
        self.table = np.array([grid.table for grid in self.grids], np.int64)

    def assign(self, gt: np.ndarray, img_shape: Sequence[int], rule: AssignRule = RPN_RULE) -> np.ndarray:
        """Assign the anchors inside an image to its ground-truth boxes.

        Args:
            gt: (G, 4), float32, without padding.
            img_shape: Height and width of the image without padding.
            rule: The thresholds, with ``low_quality``, without ``ignore``.

        Returns:
            (A,), int32: as ``assign_anchors`` returns it, and -1 for anchors that are not inside the image.
        """
        gt = np.ascontiguousarray(gt, np.float32)
        thresholds = (rule.positive, rule.negative, rule.min_positive)
        assigned = native.assign_anchors(self.anchors, self.table, gt, img_shape, *thresholds)
        return self._assign(gt, img_shape, rule) if assigned is None else assigned

    def _assign(self, gt: np.ndarray, img_shape: Sequence[int], rule: AssignRule) -> np.ndarray:
        """Do the same in NumPy."""
        assigned = np.full(len(self.anchors), -1, np.int32)
        within = [grid.within(img_shape) for grid in self.grids]
        for grid, ranges in zip(self.grids, within, strict=True):
            grid.view(assigned, ranges)[:] = 0
        # Anchors with a lower IoU are background in any case.
        least = min(rule.negative, rule.min_positive)
        near: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in gt]
        for grid, ranges in zip(self.grids, within, strict=True):
            for k, indices, iou in grid.near(gt, ranges, least):
                near[k].append((indices, iou))
        found = [tuple(map(np.concatenate, zip(*parts, strict=True))) if parts else None for parts in near]
        best, best_gt = np.zeros(len(self.anchors), np.float32), np.zeros(len(self.anchors), np.int32)
        for k, pair in enumerate(found):
            if pair is not None:
                indices, iou = pair
                better = iou > best[indices]
                best[indices[better]], best_gt[indices[better]] = iou[better], k
        for pair in filter(None, found):
            own = best[pair[0]]
            values = np.where(own >= np.float32(rule.positive), best_gt[pair[0]] + 1, -1)
            assigned[pair[0]] = np.where(own < np.float32(rule.negative), 0, values)
        for k, pair in enumerate(found):
            if pair is not None:
                indices, iou = pair
                largest = iou.max(initial=0)
                if largest >= np.float32(rule.min_positive):
                    assigned[indices[iou == largest]] = k + 1
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
        """Return the same as ``rpn_targets`` for the anchors inside an image."""
        return sampled_targets(self.anchors, self.assign(gt, img_shape, rule), gt, rng, count, positives)


class _Grid:
    """The anchors of one level and ratio: columns share x1 and x2, rows share y1 and y2."""

    def __init__(self, cells: np.ndarray, first: int, ratio: int, ratios: int):
        self.x1, self.x2, self.y1, self.y2 = cells[0, :, 0], cells[0, :, 2], cells[:, 0, 1], cells[:, 0, 3]
        self.widths, self.heights = self.x2 - self.x1, self.y2 - self.y1
        self.first, self.ratio, self.ratios = first, ratio, ratios
        self.table = (first, len(self.y1), len(self.x1), ratio, ratios)
        # Bisection of a list holds the interpreter's lock for less time than NumPy's search.
        self.lefts, self.rights = self.x1.tolist(), self.x2.tolist()
        self.tops, self.bottoms = self.y1.tolist(), self.y2.tolist()

    def within(self, img_shape: Sequence[int]) -> tuple[int, int, int, int]:
        """Return the first row, the one after the last, and the same for columns of the anchors inside an image."""
        height, width = img_shape
        # Strictly below the image's sides, as in ``inside_flags``.
        rows = bisect_left(self.tops, 0), bisect_left(self.bottoms, height)
        return (*rows, bisect_left(self.lefts, 0), bisect_left(self.rights, width))

    def view(self, values: np.ndarray, ranges: tuple[int, int, int, int]) -> np.ndarray:
        """Return the view of all anchors' values that belongs to ranges of rows and columns."""
        rows, columns = len(self.tops), len(self.lefts)
        part = values[self.first : self.first + rows * columns * self.ratios].reshape(rows, columns, self.ratios)
        top, bottom, left, right = ranges
        return part[top:bottom, left:right, self.ratio]

    def near(
        self, gt: np.ndarray, ranges: tuple[int, int, int, int], least: float
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield the anchors in ranges that may have an IoU of ``least`` with a ground-truth box.

        Args:
            gt: (G, 4).
            ranges: As ``within`` returns them.
            least: Above 0.

        Yields:
            The index of the box, indices of anchors (N,) and their IoUs (N,), float32, as ``iou_numpy`` has them.
        """
        top, bottom, left, right = ranges
        if top >= bottom or left >= right:
            return
        sides, anchor = gt[:, 2:] - gt[:, :2], (float(self.widths[0]), float(self.heights[0]))
        common = np.minimum(sides, np.array(anchor, np.float32))
        # IoU >= least means an intersection of at least this area, so of at least these sides.
        area = least * (1 - _SLACK) / (1 + least) * (anchor[0] * anchor[1] + sides[:, 0] * sides[:, 1])
        possible = (common[:, 0] * common[:, 1] >= area) & (common > 0).all(1)
        for k in np.flatnonzero(possible).tolist():
            x1, y1, x2, y2 = gt[k].tolist()
            across, down = (float(area[k] / common[k, i]) - _SLACK for i in (1, 0))
            row, row_end = bisect_left(self.bottoms, y1 + down), bisect_right(self.tops, y2 - down)
            column, column_end = bisect_left(self.rights, x1 + across), bisect_right(self.lefts, x2 - across)
            row, row_end = max(row, top), min(row_end, bottom)
            column, column_end = max(column, left), min(column_end, right)
            if row < row_end and column < column_end:
                cells = np.arange(row, row_end)[:, None] * len(self.lefts) + np.arange(column, column_end)
                indices = self.first + cells * self.ratios + self.ratio
                iou = self._iou(slice(row, row_end), slice(column, column_end), gt[k])
                yield k, indices.reshape(-1), iou.reshape(-1)

    def _iou(self, rows: slice, columns: slice, gt: np.ndarray) -> np.ndarray:
        across = np.minimum(self.x2[columns], gt[2]) - np.maximum(self.x1[columns], gt[0])
        down = np.minimum(self.y2[rows], gt[3]) - np.maximum(self.y1[rows], gt[1])
        across, down = np.maximum(across, np.float32(0)), np.maximum(down, np.float32(0))
        overlap = down[:, None] * across
        area = self.heights[rows, None] * self.widths[columns]
        union = (gt[2] - gt[0]) * (gt[3] - gt[1]) + area - overlap
        return overlap / np.maximum(union, np.float32(EPS))
