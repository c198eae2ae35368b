"""Training and evaluation batches for detection, from COCO data sets."""

from __future__ import annotations

import functools
from typing import cast

import numpy as np

from ..boxes.anchor_grid import AnchorGrid
from ..boxes.batches import DetectionBatch, DetectionEvalBatch, GroundTruth
from ..boxes.masks import crop_encoded_masks
from ..config import DataConfig, DetectionConfig
from .canvases import Canvas, CanvasOrder, by_area, choose_canvases
from .coco.split import CocoSplit
from .pipeline import WHOLE, Batch, EpochCache, EvalPipeline, Shard, TrainPipeline, signature_of
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


class DetectionTrainDataset(TrainPipeline):
    """Shuffled training batches (``DetectionBatch``), with all random numbers that a step needs.

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
        rois: R, its ``roi_samples``.
        anchors: N, anchors that the region proposal network is trained on; half of them positive at most.
        masks: Whether the batches have masks.

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
        rois: int = 512,
        anchors: int = 256,
        masks: bool = True,
    ):
        self.split, self.detection, self.seed, self.blocks = split, detection, seed, blocks
        self.sizes = (detection.max_gt, anchors, proposals, rois, blocks, masks)
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
        super().__init__(order, workers, str(split.annotation_file), config.max_bad_files)
        zeros = (DetectionBatch.zeros(config.batch_size, c, *self.sizes) for c in map(tuple, order.canvases.tolist()))
        self.signatures = list(map(signature_of, zeros))

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

    def build_batch(self, number: int, epoch: int, indices: np.ndarray) -> DetectionBatch:
        """Return batch ``number``, counted from the start of the run, made of the images ``indices``."""
        order = cast(CanvasOrder, self.order)
        canvas = order.canvas(int(number) // order.accumulation)
        batch = DetectionBatch.zeros(len(indices), canvas, *self.sizes)
        for position, index in enumerate(indices):
            self._fill(int(epoch), int(index), canvas, batch.row(position))
            if batch.noise is not None:
                batch.noise[:, :, position] = self.rng(epoch, index, 1).random((self.blocks, 2), np.float32)
        return batch

    def rng(self, epoch: int, index: int, purpose: int = 0) -> np.random.Generator:
        """Return the source of an image's random numbers in an epoch; they don't depend on the ranks."""
        return np.random.default_rng((self.seed, int(epoch), int(index), _OBJECTS, purpose))

    def _fill(self, epoch: int, index: int, canvas: Canvas, row: DetectionBatch) -> None:
        """Write an image and its ground truth into a batch's row."""
        gt, rng = row.gt, self.rng(epoch, index)
        for draws in row.draws:
            rng.random(out=draws, dtype=np.float32)
        image, index = self.read_or_replace(index, rng)
        transform = self.transforms(epoch)[index].within(canvas)
        if image is not None:
            place(transform_image(image, transform), row.images)
        row.img_shapes[:] = transform.size
        objects = self.split.objects(index)
        chosen = np.flatnonzero(~objects.crowd)
        boxes, kept = transform_boxes(objects.boxes[chosen], transform)
        chosen = chosen[kept]
        if len(chosen) > len(gt.boxes):
            drawn = np.sort(rng.choice(len(chosen), len(gt.boxes), replace=False))
            boxes, chosen = boxes[drawn], chosen[drawn]
        count = len(chosen)
        gt.boxes[:count], gt.labels[:count], gt.valid[:count] = boxes, objects.labels[chosen], True
        if gt.masks is not None:
            self._fill_masks(index, transform, boxes, objects.masks[chosen], gt)
        anchors = len(row.rpn.indices)
        targets = anchor_grid(canvas).targets(boxes, transform.size, rng, anchors, anchors // 2)
        for array, values in zip(row.rpn, targets, strict=True):
            array[:] = values

    def _fill_masks(
        self,
        index: int,
        transform: ImageTransform,
        boxes: np.ndarray,
        masks: np.ndarray,
        gt: GroundTruth,
    ) -> None:
        counts = [self.split.segmentations.encoded(int(mask), *transform.original)["counts"] for mask in masks]
        rows, columns = source_pixels(transform)
        crop_encoded_masks(counts, transform.original[0], rows, columns, boxes, gt.masks, gt.frames)


class DetectionEvalDataset(EvalPipeline):
    """Evaluation batches (``DetectionEvalBatch``), each with one canvas.

    Args:
        split: The images.
        config: The section ``DATA``.
        detection: The section ``DETECTION``.
        workers: Threads that build batches.
        shard: The part of this process.
    """

    batch_type = DetectionEvalBatch

    def __init__(
        self, split: CocoSplit, config: DataConfig, detection: DetectionConfig, workers: int, shard: Shard = WHOLE
    ):
        self.split, self.detection, self.canvases = split, detection, by_area(detection.canvases)
        sizes = rescaled(split.sizes, detection.test_short_side, detection.test_long_side)
        self.canvas_of = choose_canvases(sizes, self.canvases)
        super().__init__(len(split), config.batch_size, workers, shard, self.canvas_of)
        batch = config.batch_size
        others = (((batch, 2), np.float32), ((batch, 4), np.float32), ((batch, 2), np.int32), ((batch,), np.int32))
        self.signatures = [
            DetectionEvalBatch(((batch, 3, *self.canvases[i].tolist()), np.float32), *others, ((batch,), np.float32))
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
