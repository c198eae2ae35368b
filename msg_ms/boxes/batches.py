"""The arrays of a detector's batches, the one place for their order, shapes and types.

Shape letters: B images on a canvas of H x W pixels, G objects of an image at most, N sampled anchors, P proposals, R
sampled RoIs. Boxes are (x1, y1, x2, y2) in pixels of the resized image. The fields hold arrays of
the host; a graph receives these one by one, in this order.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .masks import CROP_SIZE


class GroundTruth(NamedTuple):
    """The objects of a batch's images, padded to G for each image.

    Attributes:
        boxes: float32 (B, G, 4), clipped to the image; zeros in padding.
        labels: Classes, int32 (B, G).
        valid: Which objects are not padding, bool (B, G); these come first.
        masks: Crops of the masks, uint8 (B, G, crop, crop), see ``masks.crop_mask``; None for a detector without masks.
        frames: The boxes in pixels that the crops show, float32 (B, G, 4), or None.
    """

    boxes: Any
    labels: Any
    valid: Any
    masks: Any = None
    frames: Any = None


class RpnTargets(NamedTuple):
    """Sampled anchors, the targets of the region proposal network; without the axis B those of one image.

    Attributes:
        indices: int32 (B, N), numbered by level, row, column and ratio; positives first, 0 in unused slots.
        labels: 1 for positives, float32 (B, N).
        weights: 0 in unused slots, float32 (B, N).
        deltas: Deltas of the positives, float32 (B, N, 4); 0 for the others.
    """

    indices: Any
    labels: Any
    weights: Any
    deltas: Any


class CascadeDraws(NamedTuple):
    """Uniform numbers in [0, 1) that sample the RoIs of each cascade stage.

    Attributes:
        stage0: float32 (B, G + P).
        stage1: float32 (B, G + R).
        stage2: float32 (B, G + R).
    """

    stage0: Any
    stage1: Any
    stage2: Any


class DetectionBatch(NamedTuple):
    """A training batch, with all random numbers that a step needs.

    Attributes:
        images: Normalised images, float32 (B, 3, H, W), with zeros below and to the right.
        img_shapes: Heights and widths without padding, float32 (B, 2).
        gt: The objects.
        rpn: The targets of the region proposal network.
        draws: Numbers that sample RoIs.
        noise: Uniform numbers in [0, 1) for stochastic depth, float32 (blocks, 2, B); None without it.
    """

    images: Any
    img_shapes: Any
    gt: GroundTruth
    rpn: RpnTargets
    draws: CascadeDraws
    noise: Any = None

    @classmethod
    def of(cls, arrays: Any, masks: bool = True) -> DetectionBatch:
        """Return the batch of arrays in the order of the fields, with or without masks, with or without noise."""
        images, img_shapes, *rest = arrays
        end = 5 if masks else 3
        truth, rest = GroundTruth(*rest[:end]), rest[end:]
        return cls(images, img_shapes, truth, RpnTargets(*rest[:4]), CascadeDraws(*rest[4:7]), *rest[7:])

    @classmethod
    def zeros(
        cls,
        batch: int,
        canvas: tuple[int, int],
        objects: int,
        anchors: int,
        proposals: int,
        rois: int,
        blocks: int = 0,
        masks: bool = True,
    ) -> DetectionBatch:
        """Return a batch of zeros.

        Args:
            batch: B.
            canvas: H and W.
            objects: G.
            anchors: N.
            proposals: P.
            rois: R.
            blocks: Depth of the model; 0 for a batch without noise.
            masks: Whether the batch has masks.
        """
        truth, sampled, single = (batch, objects), (batch, anchors), np.float32
        shapes: list[tuple[tuple[int, ...], Any]] = [
            ((batch, 3, *canvas), single),
            ((batch, 2), single),
            ((*truth, 4), single),
            (truth, np.int32),
            (truth, np.bool_),
            *([((*truth, CROP_SIZE, CROP_SIZE), np.uint8), ((*truth, 4), single)] if masks else []),
            (sampled, np.int32),
            (sampled, single),
            (sampled, single),
            ((*sampled, 4), single),
            *(((batch, objects + count), single) for count in (proposals, rois, rois)),
            *([((blocks, 2, batch), single)] if blocks else []),
        ]
        return cls.of([np.zeros(shape, kind) for shape, kind in shapes], masks)

    def row(self, index: int) -> DetectionBatch:
        """Return views of the arrays of one image, without noise."""
        return DetectionBatch(
            self.images[index],
            self.img_shapes[index],
            GroundTruth(*(None if array is None else array[index] for array in self.gt)),
            RpnTargets(*(array[index] for array in self.rpn)),
            CascadeDraws(*(array[index] for array in self.draws)),
        )


class DetectionEvalBatch(NamedTuple):
    """An evaluation batch.

    Attributes:
        images: Normalised images, float32 (B, 3, H, W), with zeros below and to the right.
        img_shapes: Heights and widths without padding, float32 (B, 2).
        scale_factors: These over the sizes of the files, as (x, y, x, y), float32 (B, 4).
        ori_shapes: Heights and widths of the files, int32 (B, 2).
        index: The images' indices in the split, int32 (B,).
        valid: 1 for an image, 0 for padding, float32 (B,).
    """

    images: Any
    img_shapes: Any
    scale_factors: Any
    ori_shapes: Any
    index: Any
    valid: Any
