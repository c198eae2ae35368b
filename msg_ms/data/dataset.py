"""Training and evaluation batches from an image folder through mindspore.dataset."""

from __future__ import annotations

import mindspore.dataset as ds
import numpy as np

from ..config import AugConfig, DataConfig
from ..errors import UserError
from .folder import ImageFolder
from .transforms import eval_transforms, train_transforms

COLUMNS = ["image", "label"]


class _EncodedFiles:
    """Random access to (bytes of the file, label)."""

    def __init__(self, folder: ImageFolder):
        self.folder = folder

    def __len__(self) -> int:
        return len(self.folder)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.int32]:
        index = int(index)
        return np.fromfile(self.folder.files[index], np.uint8), np.int32(self.folder.labels[index])


def build_train_dataset(folder: ImageFolder, config: DataConfig, aug: AugConfig, workers: int) -> ds.Dataset:
    """Shuffled batches of (float32 (B, 3, S, S), int32 (B,)), the incomplete last one left out.

    Take one iterator for all epochs: a fresh one would start with the same order again.
    """
    if len(folder) < config.batch_size:
        raise UserError(
            f"{folder.root} has {len(folder)} images, fewer than one batch of DATA.BATCH_SIZE={config.batch_size}"
        )
    source = ds.GeneratorDataset(_EncodedFiles(folder), COLUMNS, shuffle=True, num_parallel_workers=1)
    mapped = source.map(train_transforms(config.img_size, config.interpolation, aug), "image", num_parallel_workers=workers)
    return mapped.batch(config.batch_size, drop_remainder=True)


def build_eval_dataset(folder: ImageFolder, config: DataConfig, crop: bool, workers: int) -> ds.Dataset:
    """Batches of (float32 (B, 3, S, S), int32 (B,)) in the folder's order; the last one may be smaller."""
    source = ds.GeneratorDataset(_EncodedFiles(folder), COLUMNS, shuffle=False, num_parallel_workers=1)
    mapped = source.map(eval_transforms(config.img_size, config.interpolation, crop), "image", num_parallel_workers=workers)
    return mapped.batch(config.batch_size, drop_remainder=False)
