"""Signals as requests to stop, which the training loop answers between two steps."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

# The end of a job, Ctrl-C, the end of a terminal or connection, and the warning that clusters send before a time limit.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
STOPPED = os.EX_TEMPFAIL  # 75, exit status of a run that the same command continues
# Variables of the processes that a launcher has started: its mark, and the file that reports a stop to it.
LAUNCHED = "MSG_MS_JOB"
STOP_FILE = "MSG_MS_STOP_FILE"


def active_signals() -> list[signal.Signals]:
    """Return the signals that this process does not ignore, as under nohup or as a shell's background job.

    Only the main thread may set handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        return []
    return [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


class StopRequest:
    """Within the block, the first signal sets ``requested``; a second one has its usual effect.

    Under a launcher all further signals are ignored, also after the block: a cluster and the launcher may both send
    one, and the launcher ends processes that take too long.

    with StopRequest() as stop:
        while not stop.requested: ...
    """

    def __init__(self) -> None:
        self.requested = False
        self.launched = LAUNCHED in os.environ

    def __enter__(self) -> StopRequest:
        self.previous = {number: signal.signal(number, self._request) for number in active_signals()}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, signal.SIG_IGN if self.launched else handler)


@contextlib.contextmanager
def end_at_once() -> Iterator[None]:
    """Within the block, a signal ends the process at once, even inside a long call of the compiler.

    Python runs its own handlers only between two instructions. Use it where there is nothing to save.
    """
    previous = {number: signal.signal(number, signal.SIG_DFL) for number in active_signals()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def stopped_status() -> int:
    """Return the exit status of a process whose run was stopped.

    It is ``STOPPED``, but 0 under msrun, which would kill the other processes of the job. A launcher learns of the stop
    from its file, and exits with ``STOPPED`` itself.
    """
    if not os.environ.get("MS_ROLE"):
        return STOPPED
    if os.environ.get(STOP_FILE):
        Path(os.environ[STOP_FILE]).touch()
    return 0
