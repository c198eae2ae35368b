"""Description of a job of several processes, read from arguments and environment and checked on this node."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ..config import load_config
from ..engine.stop import STOP_FILE
from ..errors import UserError
from ..native.threads import thread_count, usable_cores
from .platforms import read_place
from .processes import MARK
from .settings import parse_integer, setting

PROCESSES_PER_CORE = 4  # more CPU processes must be a mistake
WORKER = Path(__file__).with_name("worker.py")


@dataclass(frozen=True)
class Job:
    """Processes to start on this node.

    Attributes:
        script: train.py or eval.py.
        flags: Arguments of the script.
        devices: Number of processes on this node, one per device.
        target: CPU, GPU or Ascend; empty for MindSpore's choice.
        nodes: Number of nodes.
        node: Index of this node.
        numbered: Whether NODE_RANK is set.
        address: Name or address of the first node.
        port: Port on the first node.
        log_dir: Folder for the logs.
        cluster_timeout: Seconds until all processes must have connected.
        stop_timeout: Seconds between a signal and SIGKILL.
        rank_table: Path of an Ascend rank table, or empty.
        foreign: Environment variables that the processes must not have.
        master: Numeric address of the first node, once the nodes have met.
    """

    script: Path
    flags: list[str]
    devices: int
    target: str
    nodes: int
    node: int
    numbered: bool
    address: str
    port: int
    log_dir: Path
    cluster_timeout: int
    stop_timeout: int
    rank_table: str
    foreign: tuple[str, ...] = ()
    master: str = ""

    def command(self) -> list[str]:
        """Return the msrun command line."""
        options = {
            "worker_num": self.devices * self.nodes,
            "local_worker_num": self.devices,
            "node_rank": self.node,
            "master_addr": self.master,
            "master_port": self.port,
            "log_dir": self.log_dir,
            "join": True,
            # msrun would copy the worker of this number to its own output with a process that outlives it.
            "tail_worker_log": self.devices * self.nodes,
            "cluster_time_out": self.cluster_timeout,
        }
        if self.rank_table:
            options["rank_table_file"] = self.rank_table
        msrun = str(Path(sys.executable).with_name("msrun"))
        return [
            msrun,
            *(f"--{name}={value}" for name, value in options.items()),
            str(WORKER),
            str(self.script),
            *self.flags,
        ]

    def environment(self, mark: str) -> dict[str, str]:
        """Return the environment of all processes, which contains ``mark``."""
        binaries = str(Path(sys.executable).parent)  # msrun starts the "python" of the search path
        own = {"PATH": f"{binaries}:{os.environ.get('PATH', '')}", "PYTHONUNBUFFERED": "1", MARK: mark}
        own["PYTHONIOENCODING"] = "utf-8"  # logs are read as UTF-8 in every locale
        own[STOP_FILE] = str(self.stop_file.absolute())
        if self.target == "CPU":
            own["OMP_NUM_THREADS"] = str(max(1, usable_cores() // self.devices))
        # Seconds without a heartbeat after which a process counts as dead; MindSpore's default is 30.
        inherited = {name: value for name, value in os.environ.items() if name not in self.foreign}
        return {"MS_NODE_TIMEOUT": "20", "MS_RECEIVE_MSG_TIMEOUT": "20", **inherited, **own}

    @property
    def first_log(self) -> Path:
        """Log of the first process on this node."""
        return self.log_dir / f"worker_{self.ranks[0]}.log"

    @property
    def launch_log(self) -> Path:
        """Output of msrun; nodes may share a folder."""
        return self.log_dir / (f"launch_node{self.node}.log" if self.node else "launch.log")

    @property
    def stop_file(self) -> Path:
        """File that a process of this node writes if the run was stopped; nodes may share a folder."""
        return self.log_dir / f".stopped_node{self.node}"

    @property
    def ranks(self) -> range:
        """Ranks of the processes on this node."""
        return range(self.node * self.devices, (self.node + 1) * self.devices)


def read_job(script: str, devices: str, config: str, data: str, flags: list[str]) -> Job:
    """Read and check a job.

    Args:
        script: ``train.py`` or ``eval.py``.
        devices: Number of devices on this node.
        config: Path of the configuration.
        data: Path of the data set.
        flags: Further arguments of the script.

    Raises:
        UserError: An argument or environment variable is invalid, a file is missing or unreadable, or this node has
            too few devices.
    """
    if not devices.isascii() or not devices.isdigit() or int(devices) < 1:
        raise UserError(f"DEVICE_NUM={devices}: must be an integer of at least 1, the number of devices on this node")
    place = read_place(int(devices))
    load_config(config)
    check_readable("DATA_PATH", data, folder=True)
    target = setting("DEVICE_TARGET")
    check_devices(target, int(devices))
    if target == "CPU":
        thread_count()  # refuses an odd MSG_MS_THREADS, once instead of on every process
    rank_table = "" if "RANK_TABLE_FILE" in place.foreign else setting("RANK_TABLE_FILE")
    if rank_table:
        check_readable("RANK_TABLE_FILE", rank_table, folder=False)
    path = Path(__file__).parents[2] / script
    flags = ["--cfg", config, "--data-path", data, *(["--device-target", target] if target else []), *flags]
    return Job(
        script=path,
        flags=flags,
        devices=int(devices),
        target=target,
        nodes=place.nodes,
        node=place.node,
        numbered=place.numbered,
        address=place.address,
        port=place.port,
        log_dir=expand_home(setting("LOG_DIR") or "logs"),
        cluster_timeout=parse_integer("CLUSTER_TIMEOUT", 300, 1),
        stop_timeout=parse_integer("STOP_TIMEOUT", 120, 1),
        rank_table=rank_table,
        foreign=place.foreign,
    )


def expand_home(text: str) -> Path:
    """Return a path with ``~`` replaced by the home folder, if there is one."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def check_readable(name: str, text: str, folder: bool) -> None:
    """Raise UserError if the variable ``name`` holds no readable file, or no readable folder."""
    path = expand_home(text)
    try:
        exists, right_kind = path.exists(), path.is_dir() if folder else path.is_file()
    except OSError as error:
        raise UserError(f"{name}={text} can't be read ({error.strerror})") from None
    if not exists and not folder:
        raise UserError(f"{name}={text} does not exist")
    if not right_kind:
        raise UserError(f"{name}={text} is not a {'directory' if folder else 'file'}")
    if not os.access(path, os.R_OK | os.X_OK if folder else os.R_OK):
        raise UserError(f"{name}={text} can't be read (Permission denied)")


def check_devices(target: str, devices: int) -> None:
    """Raise UserError if this node has fewer devices, as far as this is visible without MindSpore."""
    if target == "CPU":
        cores = usable_cores()
        if devices > PROCESSES_PER_CORE * cores:
            raise UserError(
                f"DEVICE_NUM={devices}: this node has {cores} cores; at most {PROCESSES_PER_CORE} processes per core"
            )
    elif target == "GPU":
        tool = shutil.which("nvidia-smi")
        listed = (
            subprocess.run([tool, "-L"], capture_output=True, encoding="utf-8", errors="replace").stdout if tool else ""
        )
        _require(devices, len(listed.splitlines()), "GPUs (nvidia-smi -L)")
    elif target == "Ascend":
        _require(devices, len(list(Path("/dev").glob("davinci[0-9]*"))), "Ascend devices (/dev/davinci*)")
    elif target:
        raise UserError(f"DEVICE_TARGET={target}: must be CPU, GPU or Ascend")


def _require(devices: int, available: int, kind: str) -> None:
    if devices > available:
        raise UserError(f"DEVICE_NUM={devices}: this node has {available} {kind}")
