"""Batches through mindspore.dataset, for any task.

The pipeline passes indices on, and one function builds a whole batch from them. A sample's random numbers follow from
(seed, epoch, index) alone. So neither the number of workers or ranks nor a resume changes a sample.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import cv2
import mindspore.dataset as ds
import numpy as np

from ..errors import UserError
from .pixels.image_files import BadFiles, decode_file

Value = TypeVar("Value")
Batch = tuple[Any, ...]  # arrays, and named tuples of arrays; fields that are None are absent
Signature = tuple[Any, ...]  # of the same form, with the shape and the NumPy type of every array
REPLACEMENT_TRIES = 20
_DROP_PATH = 2  # separates these random numbers from those of the samples


def map_batch(function: Callable[[Any], Any], batch: Batch | Signature) -> tuple[Any, ...]:
    """Return a batch of the same form with a function applied to every array, or entry of a signature."""

    def mapped(part: Any) -> Any:
        if hasattr(part, "_fields"):
            return type(part)(*map(mapped, part))
        return None if part is None else function(part)

    return mapped(batch) if hasattr(batch, "_fields") else tuple(map(mapped, batch))


def arrays_of(batch: Batch) -> list[np.ndarray]:
    """Return all arrays of a batch in the order of its fields."""
    arrays: list[np.ndarray] = []
    map_batch(arrays.append, batch)
    return arrays


def signature_of(batch: Batch) -> Signature:
    """Return the signature of a batch."""
    return map_batch(lambda array: (array.shape, array.dtype.type), batch)


@dataclass(frozen=True)
class Shard:
    """The part of the data that a process sees: ``rank`` of ``world_size``."""

    rank: int = 0
    world_size: int = 1


WHOLE = Shard()


class EpochOrder:
    """The order of the samples: a new permutation per epoch; an incomplete last step is dropped.

    A step consists of ``accumulation`` batches of ``batch_size`` samples on each rank. Its samples do not depend on
    this division: a rank reads its own contiguous part of them, and a batch its part of that.

    Args:
        samples: Number of samples in the data set.
        batch_size: Samples per batch.
        seed: Seed of the permutations.
        shard: The part of this process.
        accumulation: Batches per step; 0 means 1.
    """

    def __init__(self, samples: int, batch_size: int, seed: int, shard: Shard = WHOLE, accumulation: int = 1):
        self.samples, self.batch_size, self.seed, self.shard = samples, batch_size, seed, shard
        self.accumulation = max(1, accumulation)
        self.steps = samples // (batch_size * self.accumulation * shard.world_size)

    @property
    def step_size(self) -> int:
        """Samples per step, on all ranks."""
        return self.shard.world_size * self.accumulation * self.batch_size

    def epoch(self, epoch: int) -> np.ndarray:
        """Return the samples of all ranks in an epoch: int64 (steps, step_size)."""
        order = np.random.default_rng((self.seed, epoch)).permutation(self.samples)
        return order[: self.steps * self.step_size].reshape(self.steps, self.step_size)

    def indices(self, epoch: int) -> np.ndarray:
        """Return this rank's samples of an epoch: int64 (steps, accumulation, batch_size)."""
        shape = (self.steps, self.shard.world_size, self.accumulation, self.batch_size)
        return self.epoch(epoch).reshape(shape)[:, self.shard.rank]

    def batches(self, first_step: int, epochs: int) -> Iterator[tuple[np.int64, np.int64, np.ndarray]]:
        """Yield (batch number, epoch, indices) from ``first_step`` to the end of the last epoch."""
        for epoch in range(first_step // self.steps, epochs):
            begin = max(first_step, epoch * self.steps)
            batches = self.indices(epoch)[begin - epoch * self.steps :].reshape(-1, self.batch_size)
            for number, indices in enumerate(batches, begin * self.accumulation):
                yield np.int64(number), np.int64(epoch), indices


class EpochCache(Generic[Value]):
    """The results of a function of the epoch, each computed once; other threads wait for it.

    Args:
        compute: Is called with the number of the epoch.
    """

    def __init__(self, compute: Callable[[int], Value]):
        self.compute, self.lock = compute, threading.Lock()
        self.values: dict[int, Value] = {}

    def __call__(self, epoch: int) -> Value:
        """Return the value of an epoch."""
        with self.lock:
            if epoch not in self.values:
                # Workers may still build batches of the epoch before.
                self.values = {known: value for known, value in self.values.items() if known == epoch - 1}
                self.values[epoch] = self.compute(epoch)
            return self.values[epoch]


class TrainPipeline:
    """Shuffled training batches. Subclasses implement ``build_batch``, and ``name_of`` if samples are files.

    Args:
        order: The order of the samples.
        workers: Threads that build batches.
        source: Where the samples come from, for error messages.
        max_bad_files: How many undecodable files training accepts.

    Raises:
        UserError: If there are fewer samples than one step needs.
    """

    signatures: Sequence[Signature] = ()

    def __init__(self, order: EpochOrder, workers: int, source: str = "the data", max_bad_files: int = 0):
        self.order, self.workers = order, workers
        self.steps = order.steps
        self.bad_files = BadFiles(max_bad_files)
        if self.steps == 0:
            shard, accumulation = order.shard, order.accumulation
            raise UserError(
                f"{source} has {order.samples} samples, fewer than one batch of DATA.BATCH_SIZE={order.batch_size}"
                + (f" times {accumulation} batches per step" if accumulation > 1 else "")
                + (f" on each of {shard.world_size} devices" if shard.world_size > 1 else "")
            )

    def __len__(self) -> int:
        return self.order.samples

    def build_batch(self, number: int, epoch: int, indices: np.ndarray) -> Batch:
        """Return batch ``number``, counted from the start of the run, made of the samples ``indices``."""
        raise NotImplementedError

    def name_of(self, index: int) -> str:
        """Return a sample's name, such as its file."""
        return str(index)

    def read_image(self, index: int) -> np.ndarray | None:
        """Return a sample's image, uint8 RGB (H, W, 3); record the file and return None if it can't be used."""
        return decode_file(self.name_of(index), self.bad_files)

    def read_or_replace(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray | None, int]:
        """Return an image and its index; another one if it can't be decoded, and None if the run must end."""
        for _ in range(REPLACEMENT_TRIES):
            image = self.read_image(index)
            if image is not None or self.bad_files.mismatch is not None:
                return image, index
            index = int(rng.integers(len(self)))
        failed = ", ".join(self.bad_files.reasons)
        self.bad_files.fatal = f"{REPLACEMENT_TRIES} images in a row can't be decoded: {failed}"
        return None, index

    def files_of(self, step: int) -> list[str]:
        """Return the names of the samples of a step."""
        epoch, place = divmod(step, self.steps)
        return [self.name_of(index) for index in self.order.indices(epoch)[place].ravel()]

    def batches(self, first_step: int, epochs: int, log: Callable[[str], None] = print) -> Iterator[Batch]:
        """Yield all batches from ``first_step`` to the end of the last epoch.

        Args:
            first_step: The step to start at, counted from the start of the run.
            epochs: Epochs of the whole run.
            log: Is called with a line for each file that could not be decoded.

        Raises:
            UserError: If too many files can't be decoded.
        """
        for batch in run_in_parallel(lambda: self.order.batches(first_step, epochs), self.build_batch, self.workers):
            for line in self.bad_files.unreported():
                log(line)
            if fatal := self.bad_files.mismatch or self.bad_files.fatal:
                raise UserError(fatal)
            yield batch


class EvalPipeline:
    """Evaluation batches in order, each padded to ``batch_size``. Subclasses implement ``build_batch``.

    ``batch_type`` is the named tuple of a batch; its last field is ``valid``.

    Rank r of n reads samples r, r + n, ... of all, sorted by group, so every sample is evaluated exactly once. The last
    array of a batch is float32 (batch_size,): 1 for a sample, 0 for padding.

    Args:
        samples: Number of samples in the data set.
        batch_size: Samples per batch.
        workers: Threads that build batches.
        shard: The part of this process.
        groups: A number for each sample, (samples,): a batch has samples of one number only. None for no groups.
    """

    batch_type: Callable[..., Batch] = staticmethod(lambda *arrays: arrays)
    signatures: Sequence[Signature] = ()

    def __init__(
        self,
        samples: int,
        batch_size: int,
        workers: int = 1,
        shard: Shard = WHOLE,
        groups: np.ndarray | None = None,
    ):
        self.batch_size, self.workers = batch_size, workers
        if groups is None:
            groups = np.zeros(samples, np.int64)
        self.indices = np.argsort(groups, kind="stable")[shard.rank :: shard.world_size]
        self.parts = [self.indices[part] for part in parts_of_groups(groups[self.indices], batch_size)]
        self.steps = len(self.parts)
        self.bad_files = BadFiles(limit=0)

    def build_batch(self, indices: np.ndarray) -> Batch:
        """Return the arrays of the samples ``indices``, not padded."""
        raise NotImplementedError

    def batches(self) -> Iterator[Batch]:
        """Yield all batches.

        Raises:
            UserError: If a file can't be decoded, since no other may replace it, or is not the one expected.
        """
        size = self.batch_size

        def parts() -> Iterator[tuple[np.int64, np.int64, np.ndarray]]:
            for step, indices in enumerate(self.parts):
                yield np.int64(step), np.int64(0), indices

        def build(_number: int, _epoch: int, indices: np.ndarray) -> Batch:
            return self.batch_type(*pad_batch(self.build_batch(indices), size))

        for batch in run_in_parallel(parts, build, self.workers):
            if self.bad_files.mismatch is not None:
                raise UserError(self.bad_files.mismatch)
            for file, reason in self.bad_files.reasons.items():
                raise UserError(f"can't evaluate: {file} can't be decoded ({reason}); replace the file")
            yield batch


def parts_of_groups(groups: np.ndarray, size: int) -> list[np.ndarray]:
    """Return the indices of samples in parts of at most ``size``, each with samples of one group only.

    Args:
        groups: A number for each sample, (samples,).
        size: Most samples of a part.
    """
    whole = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    return [own[i : i + size] for own in whole for i in range(0, len(own), size)]


def pad_batch(arrays: Sequence[np.ndarray], batch_size: int) -> Batch:
    """Pad arrays (n, ...) to ``batch_size`` with copies of the last row; append which rows are real.

    Returns:
        The arrays (batch_size, ...), then float32 (batch_size,) with 1 for real rows and 0 for copies.
    """
    count = len(arrays[0])
    valid = (np.arange(batch_size) < count).astype(np.float32)
    if count == batch_size:
        return (*arrays, valid)
    rows = np.minimum(np.arange(batch_size), count - 1)
    return (*(array[rows] for array in arrays), valid)


def drop_path_noise(blocks: int, batch: int, seed: int, number: int, rank: int = 0) -> np.ndarray:
    """Return the random numbers of stochastic depth for a batch: uniform float32 (blocks, 2, batch).

    They follow from the seed, the batch's number and the rank, so that a resumed run drops the same branches.
    """
    return np.random.default_rng((seed, int(number), rank, _DROP_PATH)).random((blocks, 2, batch), np.float32)


def run_in_parallel(
    parts: Callable[[], Iterator[tuple[np.int64, np.int64, np.ndarray]]],
    build: Callable[[int, int, np.ndarray], Batch],
    workers: int,
) -> Iterator[Batch]:
    """Call ``build`` for every part on ``workers`` threads; yield the results in the order of the parts.

    mindspore.dataset schedules the threads. Only numbers and indices go through its queues, which would copy every
    array of a batch twice. The batches wait in a dictionary, at most as many as the queues hold numbers. Everything
    heavy in ``build`` runs outside the interpreter's lock.
    """
    ds.config.set_prefetch_size(1)  # numbers in each queue, and so batches in memory
    cv2.setNumThreads(1)  # the workers are the threads; OpenCV's own would only get in their way
    finished: dict[int, Batch | Exception] = {}

    def build_one(number: np.ndarray, epoch: np.ndarray, indices: np.ndarray) -> np.ndarray:
        try:
            finished[int(number)] = build(int(number), int(epoch), indices)
        except Exception as error:  # raised inside the pipeline it would be pages of its own traceback
            finished[int(number)] = error
        return number

    inputs = ["number", "epoch", "indices"]
    pipeline = ds.GeneratorDataset(parts, inputs, shuffle=False, num_parallel_workers=1)
    pipeline = pipeline.map(build_one, inputs, ["number"], num_parallel_workers=workers)
    for (number,) in pipeline.create_tuple_iterator(num_epochs=1, output_numpy=True):
        batch = finished.pop(int(number))
        if isinstance(batch, Exception):
            raise batch
        yield batch


def batches_in_memory(workers: int) -> int:
    """Return how many batches ``run_in_parallel`` keeps at most, with the one in use."""
    return 2 * workers + 3
