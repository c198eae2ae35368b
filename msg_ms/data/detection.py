"""Training and evaluation batches for detection, from COCO data sets."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import cast

import numpy as np

from ..boxes.anchor_grid import AnchorGrid
from ..boxes.masks import CROP_SIZE, crop_encoded_masks
from ..config import DataConfig, DetectionConfig
from .canvases import Canvas, CanvasOrder, by_area, choose_canvases
from .coco.split import CocoSplit
from .pipeline import WHOLE, Batch, EpochCache, EvalPipeline, Shard, Signature, TrainPipeline
from .pixels.detection_transforms import (
    DRAWS,
    ImageTransform,
    ImageTransforms,
    draw_transforms,
    eval_transform,
    place,
    rescaled,
    source_pixels,
    transform_boxes,
    transform_image,
)
from .pixels.image_files import BadFiles, decode_file, read_file, size_difference

_TRANSFORM, _OBJECTS = 3, 4  # separate these random numbers from others
TRAIN_COLUMNS = (
    *("images", "img_shapes", "gt", "gt_labels", "gt_valid", "gt_masks", "gt_frames"),
    *("rpn_indices", "rpn_labels", "rpn_weights", "rpn_deltas", "draws0", "draws1", "draws2"),
)
EVAL_COLUMNS = ("images", "img_shapes", "scale_factors", "ori_shapes", "index")


class DetectionTrainDataset(TrainPipeline):
    """Shuffled training batches, with all random numbers that a step needs.

    A batch holds, for B images on a canvas of H x W pixels, G objects at most, P proposals, R regions, N anchors:
    images float32 (B, 3, H, W), normalised, with zeros below and to the right; their heights and widths float32 (B, 2);
    boxes float32 (B, G, 4), classes int32 (B, G), which are no padding bool (B, G); the masks' crops uint8
    (B, G, 112, 112) and the boxes that they show float32 (B, G, 4), see ``msg_ms.boxes.masks.crop_mask``; sampled
    anchors int32 (B, N), labels float32 (B, N), weights float32 (B, N) and deltas float32 (B, N, 4), see
    ``msg_ms.boxes.anchor_sampler.rpn_targets``; uniform numbers for each stage's regions,
    float32 (B, G + P), (B, G + R), (B, G + R); and for stochastic depth, float32 (blocks, 2, B).

    Args:
        split: The images and annotations.
        config: The section ``DATA``.
        detection: The section ``DETECTION``.
        seed: Seed of everything random.
        workers: Threads that build batches.
        shard: The part of this process.
        accumulation: Batches per step.
        blocks: Depth of the model; 0 leaves the noise out of the batches.
        proposals: P, the detector's ``train_proposals``.
        regions: R, its ``region_samples``.
        anchors: N, anchors that the region proposal network is trained on; half of them positive at most.

    Raises:
        UserError: If there are fewer images than one step needs.
    """

    def __init__(
        self,
        split: CocoSplit,
        config: DataConfig,
        detection: DetectionConfig,
        seed: int,
        workers: int,
        shard: Shard = WHOLE,
        accumulation: int = 1,
        blocks: int = 0,
        proposals: int = 2000,
        regions: int = 512,
        anchors: int = 256,
    ):
        self.split, self.detection, self.seed, self.blocks, self.anchors = split, detection, seed, blocks, anchors
        self.draws = [detection.max_gt + count for count in (proposals, regions, regions)]
        self.transforms = EpochCache(self._draw_transforms)
        order = CanvasOrder(
            len(split),
            config.batch_size,
            seed,
            lambda epoch: self.transforms(epoch).sizes,
            detection.canvases,
            shard,
            accumulation,
        )
        columns = (*TRAIN_COLUMNS, "noise") if blocks else TRAIN_COLUMNS
        super().__init__(order, columns, workers, str(split.annotation_file), config.max_bad_files)
        self.signatures = [self._signature(config.batch_size, tuple(canvas)) for canvas in order.canvases.tolist()]

    def _signature(self, batch: int, canvas: Canvas) -> Signature:
        objects, anchors = (batch, self.detection.max_gt), (batch, self.anchors)
        shapes = [
            ((batch, 3, *canvas), np.float32),
            ((batch, 2), np.float32),
            ((*objects, 4), np.float32),
            (objects, np.int32),
            (objects, np.bool_),
            ((*objects, CROP_SIZE, CROP_SIZE), np.uint8),
            ((*objects, 4), np.float32),
            (anchors, np.int32),
            (anchors, np.float32),
            (anchors, np.float32),
            ((*anchors, 4), np.float32),
            *(((batch, count), np.float32) for count in self.draws),
        ]
        return (*shapes, *([((self.blocks, 2, batch), np.float32)] if self.blocks else []))

    def name_of(self, index: int) -> str:
        """Return an image's file."""
        return self.split.path(index)

    def read_image(self, index: int) -> np.ndarray | None:
        """Return an image as ``read_image`` does."""
        return read_image(self.split, index, self.bad_files)

    def _draw_transforms(self, epoch: int) -> ImageTransforms:
        """Return the transforms of all images in an epoch."""
        draws = np.random.default_rng((self.seed, int(epoch), _TRANSFORM)).random((len(self.split), DRAWS))
        return draw_transforms(self.split.sizes, draws, self.detection)

    def build_batch(self, number: int, epoch: int, indices: np.ndarray) -> Batch:
        """Return batch ``number``, counted from the start of the run, made of the images ``indices``."""
        order = cast(CanvasOrder, self.order)
        canvas = order.canvas(int(number) // order.accumulation)
        signature = self._signature(len(indices), canvas)
        arrays: list[np.ndarray] = [np.zeros(shape, kind) for shape, kind in signature]
        for row, index in enumerate(indices):
            self._fill(int(epoch), int(index), canvas, [array[row] for array in arrays[: len(TRAIN_COLUMNS)]])
            if self.blocks:
                arrays[-1][:, :, row] = self.rng(epoch, index, 1).random((self.blocks, 2), np.float32)
        return tuple(arrays)

    def rng(self, epoch: int, index: int, purpose: int = 0) -> np.random.Generator:
        """Return the source of an image's random numbers in an epoch; they don't depend on the ranks."""
        return np.random.default_rng((self.seed, int(epoch), int(index), _OBJECTS, purpose))

    def _fill(self, epoch: int, index: int, canvas: Canvas, row: Sequence[np.ndarray]) -> None:
        """Write an image and its ground truth into a batch's row."""
        images, img_shapes, gt, gt_labels, gt_valid, gt_masks, gt_frames, *rpn, draws0, draws1, draws2 = row
        rng = self.rng(epoch, index)
        for draws in (draws0, draws1, draws2):
            rng.random(out=draws, dtype=np.float32)
        image, index = self.read_or_replace(index, rng)
        transform = self.transforms(epoch)[index].within(canvas)
        if image is not None:
            place(transform_image(image, transform), images)
        img_shapes[:] = transform.size
        objects = self.split.objects(index)
        chosen = np.flatnonzero(~objects.crowd)
        boxes, kept = transform_boxes(objects.boxes[chosen], transform)
        chosen = chosen[kept]
        if len(chosen) > len(gt):
            drawn = np.sort(rng.choice(len(chosen), len(gt), replace=False))
            boxes, chosen = boxes[drawn], chosen[drawn]
        count = len(chosen)
        gt[:count], gt_labels[:count], gt_valid[:count] = boxes, objects.labels[chosen], True
        self._fill_masks(index, transform, boxes, objects.masks[chosen], gt_masks, gt_frames)
        targets = anchor_grid(canvas).targets(boxes, transform.size, rng, self.anchors, self.anchors // 2)
        for array, values in zip(rpn, targets.values(), strict=True):
            array[:] = values

    def _fill_masks(
        self,
        index: int,
        transform: ImageTransform,
        boxes: np.ndarray,
        masks: np.ndarray,
        gt_masks: np.ndarray,
        gt_frames: np.ndarray,
    ) -> None:
        counts = [self.split.segmentations.encoded(int(mask), *transform.original)["counts"] for mask in masks]
        rows, columns = source_pixels(transform)
        crop_encoded_masks(counts, transform.original[0], rows, columns, boxes, gt_masks, gt_frames)


class DetectionEvalDataset(EvalPipeline):
    """Evaluation batches, each with one canvas.

    A batch holds, for B images on a canvas of H x W pixels: images float32 (B, 3, H, W), normalised, with zeros below
    and to the right; their heights and widths float32 (B, 2); their sizes over those of the files, as (x, y, x, y),
    float32 (B, 4); heights and widths of the files int32 (B, 2); the images' indices in ``split`` int32 (B,); and
    which rows are real, float32 (B,).

    Args:
        split: The images.
        config: The section ``DATA``.
        detection: The section ``DETECTION``.
        workers: Threads that build batches.
        shard: The part of this process.
    """

    def __init__(
        self, split: CocoSplit, config: DataConfig, detection: DetectionConfig, workers: int, shard: Shard = WHOLE
    ):
        self.split, self.detection, self.canvases = split, detection, by_area(detection.canvases)
        sizes = rescaled(split.sizes, detection.test_short_side, detection.test_long_side)
        self.canvas_of = choose_canvases(sizes, self.canvases)
        super().__init__(len(split), config.batch_size, EVAL_COLUMNS, workers, shard, self.canvas_of)
        batch = config.batch_size
        others = (((batch, 2), np.float32), ((batch, 4), np.float32), ((batch, 2), np.int32), ((batch,), np.int32))
        self.signatures = [
            (((batch, 3, *self.canvases[i].tolist()), np.float32), *others, ((batch,), np.float32))
            for i in np.unique(self.canvas_of)
        ]

    def build_batch(self, indices: np.ndarray) -> Batch:
        """Return the images ``indices``, which share a canvas, and their sizes."""
        canvas = tuple(self.canvases[self.canvas_of[indices[0]]].tolist())
        images = np.zeros((len(indices), 3, *canvas), np.float32)
        transforms = [eval_transform(self.split.size(index), self.detection).within(canvas) for index in indices]
        for index, transform, output in zip(indices, transforms, images, strict=True):
            image = read_image(self.split, int(index), self.bad_files)
            if image is not None:
                place(transform_image(image, transform), output)
        return (
            images,
            np.array([transform.size for transform in transforms], np.float32),
            np.array([transform.scale_factors * 2 for transform in transforms], np.float32),
            np.array([transform.original for transform in transforms], np.int32),
            indices.astype(np.int32),
        )


@functools.lru_cache(maxsize=16)
def anchor_grid(canvas: Canvas) -> AnchorGrid:
    """Return the anchors of a canvas."""
    return AnchorGrid(*canvas)


def read_image(split: CocoSplit, index: int, bad_files: BadFiles) -> np.ndarray | None:
    """Return an image, uint8 RGB (H, W, 3); note the reason and return None if it is damaged or of another size."""
    file = split.path(index)
    image = decode_file(file, bad_files)
    if image is None or image.shape[:2] == split.size(index):
        return image
    difference = size_difference(read_file(file), (image.shape[0], image.shape[1]), split.size(index))
    bad_files.mismatch = f"{file} is {difference} ({split.annotation_file}); the boxes would not match"
    return None
