"""Signals to the launcher as requests to stop its job."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from types import FrameType

from ..engine.stop import SIGNALS, active_signals


class StoppedError(Exception):
    """A signal came while no process of the job was running."""


class StopSignals:
    """Within the block, signals set ``requested``; Ctrl-C after another signal or Ctrl-C sets ``insisted``.

    Clusters repeat their signals before they kill a job, so only a person's second Ctrl-C means more than the first.
    """

    def __init__(self) -> None:
        self.requested = self.insisted = False

    def __enter__(self) -> StopSignals:
        self.previous = {number: signal.signal(number, self._request) for number in active_signals()}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.insisted = self.requested and number == signal.SIGINT
        self.requested = True

    def check(self) -> None:
        """Raise StoppedError if a signal came."""
        if self.requested:
            raise StoppedError

    def pause(self, seconds: float) -> None:
        """Wait; raises StoppedError as soon as a signal comes."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.check()
            time.sleep(0.1)


@contextlib.contextmanager
def blocked() -> Iterator[None]:
    """Within the block, signals wait; processes that start in it never receive them unless they unblock them."""
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
