"""Processes of a job, identified in /proc by a mark in their environment."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from pathlib import Path

from ..engine.stop import LAUNCHED as MARK  # environment variable that holds the job's mark

PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
C_LIBRARY = ctypes.CDLL(None)


def end_with_parent() -> None:
    """In a new process, let the kernel kill it when its parent ends; worker.py does so for the next generation."""
    C_LIBRARY.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def job_environments(mark: str) -> dict[int, dict[str, str]]:
    """Return the environment of each process of the job, by process id."""
    environments = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with contextlib.suppress(OSError):
                pairs = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
                environment = dict(pair.partition("=")[::2] for pair in pairs)
                if environment.get(MARK) == mark:
                    environments[int(folder.name)] = environment
    return environments


def find_workers(mark: str) -> dict[int, int]:
    """Return the rank of each worker of the job, by process id; workers lead their sessions."""
    return {
        pid: int(environment["RANK_ID"])
        for pid, environment in job_environments(mark).items()
        if environment.get("MS_ROLE") == "MS_WORKER" and "RANK_ID" in environment and _leads_session(pid)
    }


def _leads_session(pid: int) -> bool:
    try:
        return os.getsid(pid) == pid
    except ProcessLookupError:
        return False


def kill_all(mark: str) -> None:
    """Kill each process of the job, and wait until none is left."""
    for _ in range(100):
        alive = job_environments(mark)
        if not alive:
            return
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
