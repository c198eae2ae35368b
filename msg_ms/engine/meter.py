"""Time per step, and the fraction of it spent waiting for data."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice

from ..data.pipeline import Batch


class Meter:
    """Measures steps, except the first one, which compiles."""

    def __init__(self) -> None:
        self.steps, self.begin, self.waited = -1, time.perf_counter(), 0.0

    def next_batches(self, batches: Iterator[Batch], count: int) -> list[Batch]:
        """Return the next ``count`` batches, and count the time as waiting."""
        begin = time.perf_counter()
        group = list(islice(batches, count))
        self.waited += time.perf_counter() - begin
        return group

    def count_step(self) -> None:
        """Count a finished step."""
        self.steps += 1
        if self.steps == 0:
            self.begin, self.waited = time.perf_counter(), 0.0

    @property
    def seconds(self) -> float:
        """Mean seconds per step."""
        return (time.perf_counter() - self.begin) / max(1, self.steps)

    @property
    def data_wait_fraction(self) -> float:
        """The fraction of the time spent waiting for data, in [0, 1]."""
        return self.waited / max(1e-9, time.perf_counter() - self.begin)
