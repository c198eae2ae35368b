"""Training and evaluation batches from image files through mindspore.dataset.

The pipeline passes indices on, and one function makes a batch of them. What it draws at random for a picture follows
from (seed, epoch, index) alone, so neither the number of workers or ranks nor the place where a run was resumed changes
a picture. A batch's mixing follows from (seed, batch number, rank).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import cv2
import mindspore.dataset as ds
import numpy as np

from ..config import AugConfig, DataConfig
from ..errors import UserError
from .collate import Erasing, collate
from .folder import ImageFolder
from .mixup import build_mixup, soft_labels
from .rand_augment import parse_rand_augment
from .transforms import color_jitter, decode, erased_boxes, erasing_fill, random_resized_crop, resize_and_crop

Batch = tuple[np.ndarray, np.ndarray]
REPLACEMENT_TRIES = 20
_MIXING = 1  # keeps a batch's draws apart from those of the pictures


@dataclass(frozen=True)
class Shard:
    """Which part of the data a process sees: ``rank`` of ``world``."""

    rank: int = 0
    world: int = 1


@dataclass
class BadFiles:
    """Files that could not be decoded, with the reason; ``limit`` is how many training puts up with."""

    limit: int
    reasons: dict[str, str] = field(default_factory=dict)
    fatal: str | None = None
    reported: int = 0

    def record(self, file: str, error: Exception) -> None:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        self.reasons[file] = re.sub(r" <_io\.BytesIO object at 0x[0-9a-f]+>", "", reason)  # Pillow's name for its input
        if len(self.reasons) > self.limit and self.fatal is None:
            self.fatal = f"more than DATA.MAX_BAD_FILES={self.limit} files can't be decoded: {', '.join(self.reasons)}"

    def unreported(self) -> list[str]:
        """Lines on the files recorded since the last call."""
        new = list(self.reasons.items())[self.reported :]
        self.reported += len(new)
        return [f"can't decode {file} ({reason}); another image takes its place" for file, reason in new]


class EpochOrder:
    """The order of the images: a new permutation per epoch; what does not fill an update is left out.

    An update takes ``accumulation`` batches of ``batch_size`` on each of ``world`` ranks. Its images are the same
    however it is cut: a rank takes its own contiguous part of them, a batch its own part of that.
    """

    def __init__(self, images: int, batch_size: int, seed: int, shard: Shard = Shard(), accumulation: int = 1):
        self.images, self.batch_size, self.seed, self.shard = images, batch_size, seed, shard
        self.accumulation = max(1, accumulation)
        self.steps = images // (batch_size * self.accumulation * shard.world)

    def indices(self, epoch: int) -> np.ndarray:
        """The images of ``epoch`` on this rank: int64 (steps, accumulation, batch_size)."""
        order = np.random.default_rng((self.seed, epoch)).permutation(self.images)
        shape = (self.steps, self.shard.world, self.accumulation, self.batch_size)
        return order[: np.prod(shape)].reshape(shape)[:, self.shard.rank]

    def batches(self, first_step: int, epochs: int) -> Iterator[tuple[np.int64, np.int64, np.ndarray]]:
        """(batch number, epoch, indices) of every batch, from update ``first_step`` to the end of the last epoch."""
        for epoch in range(first_step // self.steps, epochs):
            begin = max(first_step, epoch * self.steps)
            batches = self.indices(epoch)[begin - epoch * self.steps :].reshape(-1, self.batch_size)
            for number, indices in enumerate(batches, begin * self.accumulation):
                yield np.int64(number), np.int64(epoch), indices


class TrainDataset:
    """Shuffled, augmented batches of float32 (B, 3, S, S); ``steps`` updates make an epoch.

    Labels are int32 (B,), or float32 (B, num_classes) where Mixup or CutMix is on; those are smoothed by ``smoothing``.
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
        shard: Shard = Shard(),
        accumulation: int = 1,
    ):
        self.folder, self.config, self.aug, self.seed, self.workers = folder, config, aug, seed, workers
        self.num_classes, self.smoothing = num_classes, smoothing
        self.order = EpochOrder(len(folder), config.batch_size, seed, shard, accumulation)
        self.steps = self.order.steps
        if self.steps == 0:
            raise UserError(
                f"{folder.root} has {len(folder)} images, fewer than one batch of DATA.BATCH_SIZE={config.batch_size}"
                + (f" times {accumulation} batches per update" if accumulation > 1 else "")
                + (f" on each of {shard.world} devices" if shard.world > 1 else "")
            )
        self.rand_augment = parse_rand_augment(aug.auto_augment)
        # timm builds no colour jitter beside RandAugment.
        self.jitter = aug.color_jitter if self.rand_augment is None else 0.0
        self.mixup = build_mixup(aug)
        self.bad_files = BadFiles(config.max_bad_files)

    def files_of(self, step: int) -> list[str]:
        """The files that update ``step`` is made of."""
        epoch, place = divmod(step, self.steps)
        return [self.folder.files[index] for index in self.order.indices(epoch)[place].ravel()]

    def sample(self, epoch: int, index: int) -> tuple[np.ndarray, int, list[Erasing]]:
        """The picture, uint8 (S, S, 3), the label and what is to erase, as image ``index`` gives them in ``epoch``."""
        rng = np.random.default_rng((self.seed, int(epoch), int(index)))
        image, index = self._decode_or_replace(int(index), rng)
        config, aug = self.config, self.aug
        image = random_resized_crop(image, config.img_size, aug.crop_scale, aug.crop_ratio, config.interpolation, rng)
        if rng.random() < aug.hflip:
            image = cv2.flip(image, 1)
        if self.rand_augment is not None:
            image = self.rand_augment(image, rng)
        if self.jitter > 0:
            image = color_jitter(image, self.jitter, rng)
        return image, self.folder.labels[index], self._draw_erasings(rng)

    def _decode_or_replace(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
        for _ in range(REPLACEMENT_TRIES):
            image = decode_file(self.folder.files[index], self.bad_files)
            if image is not None:
                return image, index
            index = int(rng.integers(len(self.folder)))
        failed = ", ".join(self.bad_files.reasons)
        self.bad_files.fatal = f"{REPLACEMENT_TRIES} images in a row can't be decoded: {failed}"
        return np.zeros((8, 8, 3), np.uint8), index

    def _draw_erasings(self, rng: np.random.Generator) -> list[Erasing]:
        if rng.random() >= self.aug.reprob:
            return []
        size = self.config.img_size
        boxes = erased_boxes(size, size, self.aug.recount, rng)
        return [Erasing(*box, erasing_fill(self.aug.remode, *box[2:], rng)) for box in boxes]

    def batch(self, number: int, epoch: int, indices: np.ndarray) -> Batch:
        """Batch ``number``, counted from the run's beginning, made of the images ``indices``."""
        images, labels, erasings = zip(*(self.sample(epoch, index) for index in indices), strict=True)
        labels = np.array(labels, np.int32)
        if self.mixup is None:
            return collate(images, erasings), labels
        rng = np.random.default_rng((self.seed, int(number), self.order.shard.rank, _MIXING))
        weight, box = self.mixup.draw(*images[0].shape[:2], rng)
        soft = soft_labels(labels, self.num_classes, self.smoothing, weight)
        return collate(images, erasings, weight, box), soft

    def batches(self, first_step: int, epochs: int, log: Callable[[str], None] = print) -> Iterator[Batch]:
        """All batches from update ``first_step`` to the end of the last of ``epochs``, in one run.

        Files that can't be decoded are told to ``log``; where there are too many, UserError ends the iteration.
        """
        for batch in _in_parallel(lambda: self.order.batches(first_step, epochs), self.batch, self.workers):
            for line in self.bad_files.unreported():
                log(line)
            if self.bad_files.fatal is not None:
                raise UserError(self.bad_files.fatal)
            yield batch


class EvalDataset:
    """The images in order: batches of float32 (B, 3, S, S) and int32 (B,), the last one may be smaller.

    Of several ranks each sees every world-th image, so that all together see each exactly once.
    """

    def __init__(self, folder: ImageFolder, config: DataConfig, crop: bool, workers: int, shard: Shard = Shard()):
        self.folder, self.config, self.crop, self.workers = folder, config, crop, workers
        self.indices = range(shard.rank, len(folder), shard.world)
        self.steps = -(-len(self.indices) // config.batch_size)
        self.bad_files = BadFiles(limit=0)

    def batch(self, _number: int, _epoch: int, indices: np.ndarray) -> Batch:
        """The pictures and labels of the images ``indices``."""
        images = [self._picture(self.folder.files[index]) for index in indices]
        return collate(images), np.array([self.folder.labels[index] for index in indices], np.int32)

    def _picture(self, file: str) -> np.ndarray:
        image = decode_file(file, self.bad_files)
        image = np.zeros((8, 8, 3), np.uint8) if image is None else image
        return resize_and_crop(image, self.config.img_size, self.config.interpolation, self.crop)

    def batches(self) -> Iterator[Batch]:
        """One pass over the images; UserError names a file that can't be decoded, as nothing may replace it."""
        size = self.config.batch_size

        def parts():
            for step in range(self.steps):
                yield np.int64(step), np.int64(0), np.array(self.indices[step * size : (step + 1) * size], np.int64)

        for batch in _in_parallel(parts, self.batch, self.workers):
            for file, reason in self.bad_files.reasons.items():
                raise UserError(f"can't evaluate: {file} can't be decoded ({reason}); fetch it again")
            yield batch


def _in_parallel(
    parts: Callable[[], Iterator[tuple[np.int64, np.int64, np.ndarray]]],
    build: Callable[[int, int, np.ndarray], Batch],
    workers: int,
) -> Iterator[Batch]:
    """``build`` for every part on ``workers`` threads, the results in the parts' order.

    A worker makes a whole batch: passing single pictures on costs as much as a fifth of making them.
    """
    ds.config.set_prefetch_size(2)  # rows in each queue; a row is a whole batch here, 77 MB of 128 pictures
    cv2.setNumThreads(1)  # the workers are the threads; OpenCV's own would only get in their way
    columns = ["number", "epoch", "indices"]
    pipeline = ds.GeneratorDataset(parts, columns, shuffle=False, num_parallel_workers=1)
    pipeline = pipeline.map(build, columns, ["image", "label"], num_parallel_workers=workers)
    return pipeline.create_tuple_iterator(num_epochs=1, output_numpy=True)


def decode_file(file: str, bad_files: BadFiles) -> np.ndarray | None:
    """The picture; None, with the file recorded, where it can't be read or decoded."""
    try:
        with open(file, "rb") as stream:  # noqa: PTH123 (half the time of Path.read_bytes)
            return decode(stream.read())
    except Exception as error:
        # Raised through MindSpore's pipeline it would reach the user as pages of its own; the consumer tells it.
        bad_files.record(file, error)
        return None
