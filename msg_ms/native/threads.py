"""The number of threads: the requested one, or the CPUs that this process may use."""

from __future__ import annotations

import functools
import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import UserError

MOST_THREADS = 1024  # more must be a mistake
RESERVED = 40  # threads that MindSpore and the data pipeline start

log = logging.getLogger("msg_ms")


def usable_cores() -> int:
    """Return the CPUs that this process may use: those of its affinity mask, within the quota of its cgroups."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, cpu_quota())))


def cpu_quota(proc: Path = Path("/proc/self"), cgroups: Path = Path("/sys/fs/cgroup")) -> float:
    """Return the quota of this process's control groups in CPUs, infinity if there is none.

    Args:
        proc: folder with the process's file ``cgroup``.
        cgroups: folder where the control groups are mounted.
    """
    return min((_read_quota(folder) for folder in _group_folders_of(proc, cgroups, "cpu")), default=math.inf)


def _group_folders_of(proc: Path, cgroups: Path, controller: str) -> Iterator[Path]:
    """Yield the control groups of a process with this controller, and those above them."""
    try:
        lines = (proc / "cgroup").read_text("utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        yield from _group_folders(cgroups, controllers, group, controller)


def _group_folders(cgroups: Path, controllers: str, group: str, controller: str) -> Iterator[Path]:
    """Yield a control group and those above it: version 2 without controllers, version 1 with ``controller``."""
    if not controllers:
        roots = [cgroups, cgroups / "unified"]
    elif controller in controllers.split(","):
        roots = [cgroups / controllers, cgroups / controller]
    else:
        return
    for root in roots:
        # In a container the path may be the host's, while the mount shows only the container's part.
        folder = root / group.strip("/")
        yield folder
        yield from (parent for parent in folder.parents if parent == root or root in parent.parents)


def _read_quota(folder: Path) -> float:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text("utf-8").split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text("utf-8").strip()
            period = (folder / "cpu.cfs_period_us").read_text("utf-8")
        return int(quota) / int(period) if quota not in ("max", "-1") else math.inf
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf


def free_threads(proc: Path = Path("/proc/self"), cgroups: Path = Path("/sys/fs/cgroup")) -> float:
    """Return how many threads this process's control groups still grant, infinity if they have no limit.

    Args:
        proc: folder with the process's file ``cgroup``.
        cgroups: folder where the control groups are mounted.
    """
    return min((_read_free(folder) for folder in _group_folders_of(proc, cgroups, "pids")), default=math.inf)


def _read_free(folder: Path) -> float:
    try:
        limit = (folder / "pids.max").read_text("utf-8").strip()
        return math.inf if limit == "max" else int(limit) - int((folder / "pids.current").read_text("utf-8"))
    except (OSError, ValueError):
        return math.inf


def thread_count() -> int:
    """Return the kernels' number of threads: MSG_MS_THREADS, else OMP_NUM_THREADS, else ``usable_cores()``.

    A limit on the control group's threads lowers it: MindSpore needs ``RESERVED`` threads of its own, and without them
    it fails or waits for ever.

    MindSpore sets OMP_NUM_THREADS=1 in the C environment if it is unset. ``os.environ`` still holds the user's value.

    Raises:
        UserError: MSG_MS_THREADS is not an integer in range. An odd OMP_NUM_THREADS is only logged, since
            other programs read it too.
    """
    requested = os.environ.get("MSG_MS_THREADS", "").strip()
    if requested:
        count = _parse(requested)
        if count is None:
            raise UserError(f"MSG_MS_THREADS={requested}: must be an integer from 1 to {MOST_THREADS}")
        return _granted(count)
    general = os.environ.get("OMP_NUM_THREADS", "").strip()
    count = _parse(general.partition(",")[0].strip())  # OpenMP accepts a list, one number per level of nested loops
    if count is not None:
        return _granted(count)
    cores = usable_cores()
    if general:
        log.warning("OMP_NUM_THREADS=%s: not a number of threads; the kernels use %d", general, cores)
    return _granted(cores)


@functools.cache
def _free_at_first() -> float:
    """Return the number of threads at the first call: later the kernels' own threads are among those that are used."""
    return free_threads() - RESERVED


def _granted(count: int) -> int:
    """Return the part of ``count`` threads that leaves enough for MindSpore."""
    most = max(1, int(min(count, _free_at_first())))
    if most < count:
        log.warning("this control group limits its threads (pids.max): the kernels use %d instead of %d", most, count)
    return most


def _parse(text: str) -> int | None:
    valid = text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= MOST_THREADS
    return int(text) if valid else None
