"""Training and evaluation batches for classification, from image files in class folders."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..config import AugConfig, DataConfig
from .images.folder import ImageFolder
from .pipeline import WHOLE, Batch, EpochOrder, EvalPipeline, Shard, TrainPipeline, batches_in_memory, drop_path_noise
from .pixels.collate import Buffers, Erasing, collate
from .pixels.device_collate import MIXING, SIDES, can_erase_on_device, erasing_rows, mixing_row, stack
from .pixels.mixup import build_mixup, soft_labels
from .pixels.rand_augment import parse_rand_augment
from .pixels.transforms import (
    color_jitter,
    erased_boxes,
    erasing_fill,
    random_resized_crop,
    resize_and_crop,
    with_channels,
)
from .seeds import generators

_MIXING = 1  # separates a batch's random numbers from those of the images


class ClassificationBatch(NamedTuple):
    """A training batch of B images with S pixels a side and C channels, as arrays of the host.

    Attributes:
        images: Normalised images, float32 (B, C, S, S); with ``DATA.NORMALIZE_ON_DEVICE`` and ``can_erase_on_device``
            uint8 (B, S, S, C).
        labels: int32 (B,), or with Mixup or CutMix smoothed and float32 (B, num_classes).
        noise: Uniform numbers for stochastic depth, float32 (blocks, 2, B), of ``drop_path_noise``; None without it.
        mixing: Of uint8 images only, float32 (5,), see ``mixing_row``.
        erasings: Of uint8 images only and if boxes are erased, float32 (B, count, 4 + C), see ``erasing_rows``.
    """

    images: Any
    labels: Any
    noise: Any = None
    mixing: Any = None
    erasings: Any = None


class ClassificationEvalBatch(NamedTuple):
    """An evaluation batch.

    Attributes:
        images: As of ``ClassificationBatch``, without erasing.
        labels: int32 (B,).
        index: Number of each image in the data set, int32 (B,).
        valid: 1 for an image, 0 for padding, float32 (B,).
    """

    images: Any
    labels: Any
    index: Any
    valid: Any


class TrainDataset(TrainPipeline):
    """Shuffled, augmented batches (``ClassificationBatch``).

    Args:
        folder: The images and their labels.
        config: The section ``DATA``.
        aug: The section ``AUG``.
        num_classes: Number of classes.
        smoothing: Label smoothing of soft labels.
        seed: Seed of everything random.
        workers: Threads that build batches.
        shard: The part of this process.
        accumulation: Batches per step.
        blocks: Depth of the model; 0 leaves the noise out of the batches.
        channels: 3 for RGB, 1 for grey: the augmented image becomes its luminance.

    Raises:
        UserError: If there are fewer images than one step needs, or ``AUG`` asks for something unsupported.
    """

    def __init__(
        self,
        folder: ImageFolder,
        config: DataConfig,
        aug: AugConfig,
        num_classes: int,
        smoothing: float,
        seed: int,
        workers: int,
        shard: Shard = WHOLE,
        accumulation: int = 1,
        blocks: int = 0,
        channels: int = 3,
    ):
        order = EpochOrder(len(folder), config.batch_size, seed, shard, accumulation)
        super().__init__(order, workers, str(folder.root), config.max_bad_files)
        self.folder, self.config, self.aug, self.seed = folder, config, aug, seed
        self.buffers = Buffers(batches_in_memory(workers))
        self.num_classes, self.smoothing, self.blocks, self.channels = num_classes, smoothing, blocks, channels
        self.rand_augment = parse_rand_augment(aug.auto_augment)
        # timm builds no colour jitter beside RandAugment.
        self.jitter = aug.color_jitter if self.rand_augment is None else 0.0
        self.mixup = build_mixup(aug)
        self.raw = config.normalize_on_device and can_erase_on_device(aug)
        batch, size = config.batch_size, config.img_size
        label = ((batch,), np.int32) if self.mixup is None else ((batch, num_classes), np.float32)
        self.raw_boxes = aug.recount if self.raw and aug.reprob > 0 else 0
        signature = ClassificationBatch(
            _images_signature(batch, size, channels, self.raw),
            label,
            ((blocks, 2, batch), np.float32) if blocks else None,
            ((MIXING,), np.float32) if self.raw else None,
            ((batch, self.raw_boxes, SIDES + channels), np.float32) if self.raw_boxes else None,
        )
        self.signatures = [signature]

    def name_of(self, index: int) -> str:
        """Return an image's file."""
        return self.folder.files[index]

    def read_image(self, index: int) -> np.ndarray | None:
        """Return an image, uint8 RGB (H, W, 3); record its file and return None if it can't be used."""
        return self.folder.decode(index, self.bad_files)

    def sample(
        self, epoch: int, index: int, rng: np.random.Generator | None = None
    ) -> tuple[np.ndarray, int, list[Erasing]]:
        """Return the image, uint8 (S, S, C), its label and its erased boxes in an epoch.

        Args:
            epoch: The epoch, from 0.
            index: The image.
            rng: The generator of (seed, epoch, index), if there is one already.
        """
        rng = rng or np.random.default_rng((self.seed, int(epoch), int(index)))
        image, index = self.read_or_replace(int(index), rng)
        if image is None:  # the run ends
            image = np.zeros((8, 8, 3), np.uint8)
        config, aug = self.config, self.aug
        image = random_resized_crop(
            image, config.img_size, aug.crop_scale, aug.crop_ratio, config.interpolation, aug.hflip, rng
        )
        if self.rand_augment is not None:
            image = self.rand_augment(image, rng)
        if self.jitter > 0:
            image = color_jitter(image, self.jitter, rng)
        return with_channels(image, self.channels), self.folder.labels[index], self._draw_erasings(rng)

    def _draw_erasings(self, rng: np.random.Generator) -> list[Erasing]:
        if rng.random() >= self.aug.reprob:
            return []
        size = self.config.img_size
        boxes = erased_boxes(size, size, self.aug.recount, rng)
        return [Erasing(*box, erasing_fill(self.aug.remode, *box[2:], rng, self.channels)) for box in boxes]

    def build_batch(self, number: int, epoch: int, indices: np.ndarray) -> ClassificationBatch:
        """Return batch ``number``, counted from the start of the run, made of the images ``indices``."""
        rngs = generators(self.seed, int(epoch), indices)
        samples = [self.sample(epoch, index, rng) for index, rng in zip(indices.tolist(), rngs, strict=True)]
        images, labels, erasings = zip(*samples, strict=True)
        labels, rank = np.array(labels, np.int32), self.order.shard.rank
        noise = drop_path_noise(self.blocks, len(indices), self.seed, number, rank) if self.blocks else None
        weight, box = 1.0, None
        if self.mixup is not None:
            # A batch's mixing follows from (seed, batch number, rank).
            rng = np.random.default_rng((self.seed, int(number), rank, _MIXING))
            weight, box = self.mixup.draw(images[0].shape[0], images[0].shape[1], rng)
            labels = soft_labels(labels, self.num_classes, self.smoothing, weight)
        if not self.raw:
            return ClassificationBatch(collate(images, erasings, weight, box, self.buffers), labels, noise)
        boxes = erasing_rows(erasings, self.raw_boxes, self.channels) if self.raw_boxes else None
        return ClassificationBatch(stack(images, self.buffers), labels, noise, mixing_row(weight, box), boxes)


def _images_signature(batch: int, size: int, channels: int, raw: bool) -> tuple[tuple[int, ...], type]:
    return ((batch, size, size, channels), np.uint8) if raw else ((batch, channels, size, size), np.float32)


class EvalDataset(EvalPipeline):
    """The images in order, in batches (``ClassificationEvalBatch``).

    Args:
        folder: The images and their labels.
        config: The section ``DATA``.
        crop: Whether to resize the shorter edge and crop the centre, instead of resizing both edges.
        workers: Threads that build batches.
        shard: The part of this process.
        channels: 3 for RGB, 1 for grey.
    """

    batch_type = ClassificationEvalBatch

    def __init__(
        self,
        folder: ImageFolder,
        config: DataConfig,
        crop: bool,
        workers: int,
        shard: Shard = WHOLE,
        channels: int = 3,
    ):
        super().__init__(len(folder), config.batch_size, workers, shard)
        self.folder, self.config, self.crop, self.channels = folder, config, crop, channels
        self.buffers = Buffers(batches_in_memory(workers))
        batch, numbers = config.batch_size, ((config.batch_size,), np.int32)
        images = _images_signature(batch, config.img_size, channels, config.normalize_on_device)
        self.signatures = [ClassificationEvalBatch(images, numbers, numbers, ((batch,), np.float32))]

    def build_batch(self, indices: np.ndarray) -> Batch:
        """Return the images ``indices``, their labels and ``indices``."""
        images = [self._image(index) for index in indices]
        build = stack if self.config.normalize_on_device else collate
        labels = np.array([self.folder.labels[index] for index in indices], np.int32)
        return build(images, buffers=self.buffers), labels, indices.astype(np.int32)

    def _image(self, index: int) -> np.ndarray:
        image = self.folder.decode(index, self.bad_files)
        image = np.zeros((8, 8, 3), np.uint8) if image is None else image
        image = resize_and_crop(image, self.config.img_size, self.config.interpolation, self.crop)
        return with_channels(image, self.channels)
