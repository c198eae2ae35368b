"""The logs of a job: one job in a folder at a time, and no file of another program replaced."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import re
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ..errors import UserError, shorten
from ..files import make_folder, written_by_others
from .job import Job

LOCK = ".launch.lock"  # held by all launchers of a job; left behind, it shows that the logs are a launcher's
OWN_FILES = re.compile(r"worker_\d+\.log|scheduler\.log|launch(_node\d+)?\.log")
LOCK_SECONDS = 5  # for a launcher of the same job to write its name into the lock


def say(text: str, error: bool = False, end: str = "\n") -> None:
    """Print to a terminal or pipe that may be closed; the job continues without it."""
    stream = sys.stderr if error else sys.stdout
    if stream is None:
        return
    try:
        print(text, end=end, file=stream, flush=True)
    except (OSError, ValueError):
        # Later flushes, and the one at the end of Python, must not fail either.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextlib.contextmanager
def open_logs(job: Job) -> Iterator[Job]:
    """Reserve the folder ``LOG_DIR`` for a job.

    Nodes of one job may share a folder. If all users can write to it, the logs are written to a private folder: others
    could plant logs, or links in their place.

    Yields:
        The job, with the folder that it writes to.

    Raises:
        UserError: If the folder can't be written, or another job uses it.
    """
    try:
        job, lock = _reserve(job)
    except OSError as error:
        raise UserError(f"LOG_DIR={job.log_dir} can't be written ({error.strerror or error})") from None
    with lock:
        yield job


def _reserve(job: Job) -> tuple[Job, IO[str]]:
    folder = job.log_dir
    make_folder(folder.absolute())
    reason = written_by_others(folder.resolve(), 0o002)
    if reason:
        folder = Path(tempfile.mkdtemp(prefix="msg_ms-logs-"))
        say(f"LOG_DIR={job.log_dir} is not safe ({reason}): the logs are in {folder}")
    job = dataclasses.replace(job, log_dir=folder)
    known = (folder / LOCK).exists()
    lock = (folder / LOCK).open("a+", encoding="utf-8")
    alone = _lock(lock, job)
    if alone and not known:
        _keep_foreign(folder)
    remove_logs(job, everything=alone)
    return job, lock


def _lock(lock: IO[str], job: Job) -> bool:
    """Lock the folder for a job; return whether this launcher is the first of its job."""
    own = f"{job.address}:{job.port}"
    end = time.monotonic() + LOCK_SECONDS
    while time.monotonic() < end:
        try:
            first = _try_lock(lock, fcntl.LOCK_EX)
            if first:
                lock.truncate(0)
                lock.write(f"{own} process {os.getpid()} on {socket.gethostname()}")
                lock.flush()
            shared = _try_lock(lock, fcntl.LOCK_SH)
        except OSError:  # a file system without locks
            return job.node == 0
        if shared:
            lock.seek(0)
            holder, _, process = lock.read().partition(" ")
            if holder == own and (first or job.nodes > 1):
                return first
            raise UserError(
                f"LOG_DIR={job.log_dir} is in use by another job ({process}, MASTER_PORT={holder.rpartition(':')[2]}): "
                "set LOG_DIR to another folder"
            )
        time.sleep(0.1)  # another launcher is writing its name
    raise UserError(f"LOG_DIR={job.log_dir} is locked by another process: set LOG_DIR to another folder")


def _try_lock(lock: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def remove_logs(job: Job, everything: bool = False) -> None:
    """Remove the logs of an earlier attempt: those that this node will write, or all that launchers have written.

    A launcher that was killed may also have left the report that its run was stopped.
    """
    own = {job.launch_log.name, job.stop_file.name, *(f"worker_{rank}.log" for rank in job.ranks)}
    if job.node == 0:
        own.add("scheduler.log")
    for path in job.log_dir.iterdir():
        if path.name in own or (everything and OWN_FILES.fullmatch(path.name)):
            path.unlink()


def _keep_foreign(folder: Path) -> None:
    """Rename files that have a log's name in a folder that no launcher has used before."""
    kept = []
    for path in sorted(folder.iterdir()):
        if OWN_FILES.fullmatch(path.name):
            new = next(new for i in range(1, 10**6) if not (new := path.with_name(f"{path.name}.{i}")).exists())
            kept.append(path.rename(new).name)
    if kept:
        say(f"files in {folder} that this launcher has not written are kept as {shorten(kept)}")
