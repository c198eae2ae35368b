"""Signals as requests to stop, which the training loop answers between two steps."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

# The end of a job, Ctrl-C, and the end of a terminal or connection.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def _active() -> list[signal.Signals]:
    """Return the signals that this process does not ignore, as under nohup or as a shell's background job."""
    return [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


class StopRequest:
    """Within the block, the first signal sets ``requested``; a second one has its usual effect.

    with StopRequest() as stop:
        while not stop.requested: ...
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> StopRequest:
        self.previous = {number: signal.signal(number, self._request) for number in _active()}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def end_at_once() -> Iterator[None]:
    """Within the block, a signal ends the process at once, even inside a long call of the compiler.

    Python runs its own handlers only between two instructions. Use it where there is nothing to save.
    """
    previous = {number: signal.signal(number, signal.SIG_DFL) for number in _active()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
