"""Training and evaluation batches from an image folder through mindspore.dataset.

The pipeline passes (epoch, index) pairs on; one function turns a pair into a picture and its label. What that
function draws at random follows from (seed, epoch, index) alone, so neither the number of workers nor the place
where a run was resumed changes a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import mindspore.dataset as ds
import numpy as np
from mindspore.dataset import vision

from ..config import AugConfig, DataConfig
from ..errors import UserError
from .folder import ImageFolder
from .transforms import normalise, random_resized_crop, resize_and_crop

Sample = tuple[np.ndarray, np.int32]


class EpochOrder:
    """Batches of image indices without end: a new permutation per epoch, its incomplete last batch left out."""

    def __init__(self, images: int, batch_size: int, seed: int):
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self.steps = images // batch_size

    def indices(self, epoch: int) -> np.ndarray:
        """The order of ``epoch``: int64 (steps * batch_size,)."""
        order = np.random.default_rng((self.seed, epoch)).permutation(self.images)
        return order[: self.steps * self.batch_size]

    def pairs(self, first_step: int, epochs: int) -> Iterator[tuple[np.int64, np.int64]]:
        """(epoch, index) of every image from update ``first_step`` on, to the end of the last of ``epochs``."""
        for epoch in range(first_step // self.steps, epochs):
            skip = first_step - epoch * self.steps if epoch == first_step // self.steps else 0
            for index in self.indices(epoch)[skip * self.batch_size :]:
                yield np.int64(epoch), index


class TrainDataset:
    """Shuffled, augmented batches: float32 (B, 3, S, S) and int32 (B,); ``steps`` batches make an epoch."""

    def __init__(self, folder: ImageFolder, config: DataConfig, aug: AugConfig, seed: int, workers: int):
        if len(folder) < config.batch_size:
            raise UserError(
                f"{folder.root} has {len(folder)} images, fewer than one batch of DATA.BATCH_SIZE={config.batch_size}"
            )
        self.folder, self.config, self.aug, self.seed, self.workers = folder, config, aug, seed, workers
        self.order = EpochOrder(len(folder), config.batch_size, seed)
        self.steps = self.order.steps

    def sample(self, epoch: int, index: int) -> Sample:
        """The picture, uint8 (S, S, 3), and label that image ``index`` gives in ``epoch``."""
        rng = np.random.default_rng((self.seed, int(epoch), int(index)))
        image = _decode(self.folder.files[index])
        size, mode = self.config.img_size, self.config.interpolation
        image = random_resized_crop(image, size, self.aug.crop_scale, self.aug.crop_ratio, mode, rng)
        if rng.random() < self.aug.hflip:
            image = np.ascontiguousarray(image[:, ::-1])
        return image, np.int32(self.folder.labels[index])

    def batches(self, first_step: int, epochs: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All batches from update ``first_step`` to the end of the last of ``epochs``, in one run."""

        def pairs():
            return self.order.pairs(first_step, epochs)

        return _batches(pairs, self.sample, self.config.batch_size, self.workers)


class EvalDataset:
    """The folder's images in order: batches of float32 (B, 3, S, S) and int32 (B,), the last one may be smaller."""

    def __init__(self, folder: ImageFolder, config: DataConfig, crop: bool, workers: int):
        self.folder, self.config, self.crop, self.workers = folder, config, crop, workers
        self.steps = -(-len(folder) // config.batch_size)

    def sample(self, _: int, index: int) -> Sample:
        """The picture, uint8 (S, S, 3), and label of image ``index``."""
        image = _decode(self.folder.files[index])
        image = resize_and_crop(image, self.config.img_size, self.config.interpolation, self.crop)
        return image, np.int32(self.folder.labels[index])

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """One pass over all images."""

        def pairs():
            return ((np.int64(0), np.int64(index)) for index in range(len(self.folder)))

        return _batches(pairs, self.sample, self.config.batch_size, self.workers)


def _batches(
    pairs: Callable[[], Iterator[tuple[np.int64, np.int64]]],
    sample: Callable[[int, int], Sample],
    batch_size: int,
    workers: int,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    pipeline = ds.GeneratorDataset(pairs, ["epoch", "index"], shuffle=False, num_parallel_workers=1)
    pipeline = pipeline.map(sample, ["epoch", "index"], ["image", "label"], num_parallel_workers=workers)
    pipeline = pipeline.map(normalise(), "image", num_parallel_workers=workers)
    return iter(pipeline.batch(batch_size).create_tuple_iterator(num_epochs=1, output_numpy=True))


def _decode(file: str) -> np.ndarray:
    """RGB uint8 (H, W, 3) of an image file, as Pillow decodes it."""
    return vision.Decode()(np.fromfile(file, np.uint8))
