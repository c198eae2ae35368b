"""SIGTERM and SIGINT as requests that the training loop answers between two steps."""

from __future__ import annotations

import signal
from types import FrameType


class StopRequest:
    """Within the block, the first signal sets ``requested``; a second one has its usual effect.

    with StopRequest() as stop:
        while not stop.requested: ...
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> StopRequest:
        self.previous = {number: signal.signal(number, self._request) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
