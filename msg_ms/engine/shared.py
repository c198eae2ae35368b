"""Work that one process of each machine does for all of its processes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..errors import UserError
from .ranks import Ranks

Value = TypeVar("Value")
Arrays = dict[str, np.ndarray]
SHARED_MEMORY = Path("/dev/shm")


def once_per_node(
    ranks: Ranks, work: Callable[[], Value], pack: Callable[[Value], Arrays], unpack: Callable[[Arrays], Value]
) -> Value:
    """Call ``work`` on one rank of each machine; the machine's other ranks map its result into their memory.

    Without room for a file every rank calls ``work`` itself. The file is removed once all ranks have mapped it.

    Args:
        ranks: The ranks of the job.
        work: Returns the result.
        pack: Returns a result as arrays by name.
        unpack: Returns the result of these arrays.

    Raises:
        UserError: On every rank, if ``work`` raises one on any.
    """
    if ranks.world_size == 1:
        return work()
    nodes = ranks.gather_bytes(_node().encode())
    own = nodes[ranks.rank]
    leader = nodes.index(own)
    value: Any = None
    outcome: dict[str, str] = {}
    folder: Path | None = None
    if leader == ranks.rank:
        try:
            value = work()
            folder = _write(pack(value)) if nodes.count(own) > 1 else None
            outcome = {"folder": str(folder or "")}
        except UserError as error:
            outcome = {"error": str(error)}
    try:
        outcomes = [json.loads(line) for line in ranks.gather_bytes(json.dumps(outcome).encode())]
        errors = [outcome["error"] for outcome in outcomes if "error" in outcome]
        if errors:
            raise UserError(errors[0])
        if leader != ranks.rank:
            arrays = _map(outcomes[leader]["folder"])
            value = unpack(arrays) if arrays else work()
        ranks.gather([0])  # until all have mapped the files
        return value
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _node() -> str:
    """Return a name of this machine and of the files that its processes of this user see."""
    parts = [socket.gethostname(), str(os.getuid())]
    with contextlib.suppress(OSError):
        parts += [
            Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip(),
            str(Path("/proc/self/ns/mnt").readlink()),
        ]
    return "\n".join(parts)


def _write(arrays: Arrays) -> Path | None:
    """Write the arrays to a private folder, in memory if possible; return None if there is no room."""
    for place in (SHARED_MEMORY, None):
        folder = None
        try:
            folder = Path(tempfile.mkdtemp(prefix="msg_ms-", dir=place))
            for name, array in arrays.items():
                np.save(folder / f"{name}.npy", array)
            return folder
        except OSError:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
    return None


def _map(folder: str) -> Arrays | None:
    """Map the arrays in a folder; return None if there is none that this process can read."""
    if not folder:
        return None
    try:
        return {path.stem: np.load(path, mmap_mode="r") for path in Path(folder).glob("*.npy")}
    except (OSError, ValueError):
        return None
