"""Canvases: the few sizes that images are padded to, and the order of training that fills a step with one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .pipeline import WHOLE, EpochCache, EpochOrder, Shard

Canvas = tuple[int, int]  # height, width


def _scales(sizes: np.ndarray, canvases: np.ndarray) -> np.ndarray:
    """Return the factors, at most 1, by which images must shrink to fit on canvases, (images, canvases)."""
    return np.minimum((canvases[None] / sizes[:, None]).min(-1), 1.0)


def by_area(canvases: Sequence[Canvas]) -> np.ndarray:
    """Return the canvases by rising area, int64 (C, 2)."""
    return np.array(sorted((tuple(canvas) for canvas in canvases), key=lambda c: (c[0] * c[1], c)), np.int64)


def choose_canvases(sizes: np.ndarray, canvases: np.ndarray) -> np.ndarray:
    """Return the smallest canvas that holds each image, or the one that it must shrink least for.

    Args:
        sizes: Heights and widths, (N, 2).
        canvases: As ``by_area`` returns them, (C, 2).

    Returns:
        Indices of canvases, int64 (N,).
    """
    return np.argmax(_scales(sizes, canvases), 1)


class CanvasOrder(EpochOrder):
    """The order of training samples with one canvas for each step, on all ranks.

    As in ``EpochOrder``, an epoch is a new permutation, and each sample is in it once, apart from fewer than one step
    of samples. The samples of each canvas fill steps of their own, in the order of the permutation. The remaining ones
    fill at most one step for each canvas but one, where some images are shrunk to fit. The steps are then shuffled.

    Args:
        samples: Number of samples in the data set.
        batch_size: Samples per batch.
        seed: Seed of the permutations.
        sizes: Returns heights and widths of all samples in an epoch, (samples, 2).
        canvases: Heights and widths.
        shard: The part of this process.
        accumulation: Batches per step; 0 means 1.
    """

    def __init__(
        self,
        samples: int,
        batch_size: int,
        seed: int,
        sizes: Callable[[int], np.ndarray],
        canvases: Sequence[Canvas],
        shard: Shard = WHOLE,
        accumulation: int = 1,
    ):
        super().__init__(samples, batch_size, seed, shard, accumulation)
        self.sizes, self.canvases = sizes, by_area(canvases)
        # Neighbours should be alike: from the largest portrait over the small ones to the largest landscape.
        heights, widths = self.canvases.T
        area = heights * widths
        self.ranks = np.argsort(np.argsort(np.where(heights > widths, -area, area), kind="stable"), kind="stable")
        self._plan = EpochCache(self._new_plan)

    def epoch(self, epoch: int) -> np.ndarray:
        """Return the samples of all ranks in an epoch: int64 (steps, step_size)."""
        return self._plan(epoch)[0]

    def canvas(self, step: int) -> Canvas:
        """Return height and width of the canvas of a step, counted from the start of the run."""
        epoch, place = divmod(step, self.steps)
        return tuple(self.canvases[self._plan(epoch)[1][place]].tolist())

    def _new_plan(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the samples (steps, step_size) and the canvas (steps,) of each step of an epoch."""
        order, size = super().epoch(epoch).reshape(-1), self.step_size
        sizes = self.sizes(epoch)[order]
        canvas = choose_canvases(sizes, self.canvases)
        steps, canvases, rest = [], [], []
        for index in np.argsort(self.ranks):
            own = np.flatnonzero(canvas == index)
            full = len(own) // size * size
            steps.append(own[:full].reshape(-1, size))
            canvases += [index] * (full // size)
            rest.append(own[full:])
        mixed = np.concatenate(rest).reshape(-1, size)
        for step in mixed:
            canvases.append(np.argmax(_scales(sizes[step], self.canvases).min(0)))
        steps = order[np.concatenate([*steps, mixed])]
        shuffled = np.random.default_rng((self.seed, int(epoch), size)).permutation(self.steps)
        return steps[shuffled], np.array(canvases, np.int64)[shuffled]
