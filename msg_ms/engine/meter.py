"""Time per step, and how much of it the host waits for data and for results."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice

from ..data.pipeline import Batch
from .train_step import Figures, PendingFigures


class Meter:
    """Measures steps, except the first one, which compiles."""

    def __init__(self) -> None:
        self.restart()
        self.steps = -1

    def next_batches(self, batches: Iterator[Batch], count: int) -> list[Batch]:
        """Return the next ``count`` batches, and count the time as waiting."""
        begin = time.perf_counter()
        group = list(islice(batches, count))
        self.waited += time.perf_counter() - begin
        return group

    def read(self, figures: PendingFigures) -> Figures:
        """Return the figures of a step, and count the time as waiting for results."""
        begin = time.perf_counter()
        values = figures.read()
        self.result_wait += time.perf_counter() - begin
        return values

    def count_step(self) -> None:
        """Count a finished step."""
        self.steps += 1
        if self.steps == 0:
            self.restart()

    def restart(self) -> None:
        """Forget all steps, for a measurement from now on."""
        self.steps, self.begin, self.waited, self.result_wait = 0, time.perf_counter(), 0.0, 0.0

    @property
    def elapsed(self) -> float:
        """Seconds since the first step or the restart."""
        return time.perf_counter() - self.begin

    @property
    def seconds(self) -> float:
        """Mean seconds per step."""
        return self.elapsed / max(1, self.steps)

    @property
    def data_wait_fraction(self) -> float:
        """The fraction of the time spent waiting for data, in [0, 1]."""
        return self.waited / max(1e-9, self.elapsed)
