"""The processes of a job, found through /proc by a mark in their environment, whatever started them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

MARK = "MSG_MS_JOB"  # environment variable that holds the job's mark


def job_environments(mark: str) -> dict[int, dict[str, str]]:
    """The environment of every living process of the job, by process number."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with contextlib.suppress(OSError):
                pairs = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
                environment = dict(pair.partition("=")[::2] for pair in pairs)
                if environment.get(MARK) == mark:
                    found[int(folder.name)] = environment
    return found


def find_workers(mark: str) -> dict[int, int]:
    """The rank of every worker process of the job: the heads of their sessions."""
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
    """End every process of the job, and wait until nothing of it is left."""
    for _ in range(100):
        alive = job_environments(mark)
        if not alive:
            return
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
