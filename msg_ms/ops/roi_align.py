"""RoIAlign on a pyramid of feature maps (He et al., "Mask R-CNN", 2017), as mmcv computes it with ``aligned=True``.

Shape letters: B images, C channels, L levels, R RoIs, S side of the output in bins.
"""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from .backend import kernel

MAX_LEVELS = 4


class RoIAlign(nn.Cell):
    """Mean of bilinear samples in S x S bins of each RoI, from the RoI's own level.

    ``sampling=0`` is mmcv's adaptive sampling: ceil(bin side in cells) samples a side, so that an RoI without area
    returns zeros. The native kernel follows it for any RoI. The composed form has a fixed number of steps and is
    exact for RoIs up to ``max_cells`` a side; longer ones are sampled more coarsely. With mmdetection's choice of
    levels, 56 cells cover every RoI up to an aspect ratio of 4.

    Only the features receive gradients, as in mmdetection.

    Args:
        side: S.
        strides: pixels per cell of each of the L levels, four at most.
        sampling: samples a side and bin; 0 for adaptive sampling.
        max_cells: bound of the composed form.

    Raises:
        ValueError: more than four levels.
    """

    def __init__(self, side: int, strides: Sequence[int], sampling: int = 0, max_cells: int = 56):
        super().__init__()
        self.side, self.strides, self.sampling = side, tuple(strides), sampling
        if len(self.strides) > MAX_LEVELS:
            raise ValueError(f"{len(self.strides)} levels: at most {MAX_LEVELS}")
        self.max_samples = sampling or -(-max_cells // side)
        self.scales = Tensor(np.array([1 / stride for stride in strides], np.float32))
        # MindSpore selects a compiled kernel by the shapes of its inputs: the length makes S one of them.
        scales = [*self.scales.asnumpy(), *[0.0] * (MAX_LEVELS - len(self.strides))]
        self.settings = Tensor(np.array([side, sampling, *scales, *[0.0] * side], np.float32))
        self.one = Tensor(np.float32(1))
        grad = kernel("roi_align_grad", lambda *shapes: shapes[:MAX_LEVELS], MAX_LEVELS)

        def bprop(map0, map1, map2, map3, rois, levels, settings, out, dout):
            gradients = grad(map0, map1, map2, map3, rois, levels, settings, dout)
            return (*gradients, ops.zeros_like(rois), ops.zeros_like(levels), ops.zeros_like(settings))

        def shapes(*inputs):
            return [inputs[MAX_LEVELS][0], inputs[0][1], side, side]

        self.native = kernel("roi_align", shapes, gradient=bprop)

    def construct(self, features: tuple[Tensor, ...], rois: Tensor, levels: Tensor) -> Tensor:
        """Pool RoIs.

        Args:
            features: L maps (B, C, H, W).
            rois: (R, 5), image index and box (x1, y1, x2, y2) in pixels of the image, float32.
            levels: (R,), the level of each RoI, int32.

        Returns:
            (R, C, S, S) in the precision of the features.
        """
        rois = ops.stop_gradient(rois)
        if self.native is not None and features[0].dtype == ms.float32:
            # The gradient of an operator has a fixed number of inputs. No RoI is on the repeated maps.
            maps = (*features, *(features[0],) * (MAX_LEVELS - len(self.strides)))
            return self.native(*maps, rois, levels.astype(ms.float32), self.settings)
        return self.composed(features, rois, levels)

    def composed(self, features: tuple[Tensor, ...], rois: Tensor, levels: Tensor) -> Tensor:
        """Do the same with MindSpore's operators: each step gathers one row of cells for all bins."""
        batch, channels = features[0].shape[:2]
        heights, widths, bases, tables, total = [], [], [], [], 0
        for feature in features:
            heights.append(feature.shape[2])
            widths.append(feature.shape[3])
            bases.append(total)
            tables.append(feature.transpose(0, 2, 3, 1).reshape(-1, channels))
            total += batch * feature.shape[2] * feature.shape[3]
        table = ops.cat(tables) if len(tables) > 1 else tables[0]
        height, width, base = (ops.gather(Tensor(x, ms.int32), levels, 0) for x in (heights, widths, bases))
        scale = ops.gather(self.scales, levels, 0)
        rows, row_weights = self.axis_samples(rois[:, 2], rois[:, 4], scale, height)
        columns, column_weights = self.axis_samples(rois[:, 1], rois[:, 3], scale, width)
        rows = (base + rois[:, 0].astype(ms.int32) * height * width).reshape(-1, 1, 1) + rows * width.reshape(-1, 1, 1)
        columns, column_weights = columns.expand_dims(1), column_weights.expand_dims(1)
        taps = 2 * self.max_samples
        out: Tensor = 0.0
        for tap in range(taps):
            cells = rows[:, :, tap].reshape(-1, self.side, 1, 1) + columns
            weights = row_weights[:, :, tap].reshape(-1, self.side, 1, 1) * column_weights
            taken = ops.gather(table, cells.reshape(-1, taps), 0).astype(ms.float32)
            out = out + ops.bmm(weights.reshape(-1, 1, taps), taken)
        out = out.reshape(-1, self.side, self.side, channels).transpose(0, 3, 1, 2)
        return out.astype(features[0].dtype)

    def axis_samples(self, low: Tensor, high: Tensor, scale: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        """Return the two cells of each sample along one axis and their weights.

        Args:
            low: (R,), the RoIs' start in pixels.
            high: (R,), their end.
            scale: (R,), cells per pixel.
            size: (R,), cells of the map, int32.

        Returns:
            Cells, int32, and weights, each (R, S, 2 * samples). Samples outside the map have weight 0.
        """
        start = low * scale - 0.5
        bin_length = ((high * scale - 0.5) - start) / self.side
        samples = ops.zeros_like(bin_length) + self.sampling
        if self.sampling == 0:
            samples = ops.clamp(ops.ceil(bin_length), 0.0, float(self.max_samples))
        start, bin_length, samples = (v.reshape(-1, 1, 1) for v in (start, bin_length, samples))
        number = ops.arange(0, self.max_samples).astype(ms.float32).reshape(1, 1, -1)
        bins = ops.arange(0, self.side).astype(ms.float32).reshape(1, -1, 1)
        count = ops.maximum(samples, self.one)
        # Samples beyond the last one repeat it with weight 0.
        position = start + bins * bin_length + (ops.minimum(number, count - 1.0) + 0.5) * bin_length / count
        last = size.astype(ms.float32).reshape(-1, 1, 1) - 1.0
        used = (number < samples).logical_and(position >= -1.0).logical_and(position <= last + 1.0)
        inside = ops.minimum(ops.maximum(position, ops.zeros_like(position)), last)
        lower = ops.floor(inside)
        fraction = inside - lower
        weight = used.astype(ms.float32) / count + 0.0 * position  # NaN for an RoI that is NaN
        upper = ops.minimum(lower + 1.0, last)
        cells = ops.clamp(ops.cat((lower, upper), -1), 0.0, float(2**24)).astype(ms.int32)
        return cells, ops.cat((weight * (1.0 - fraction), weight * fraction), -1)
