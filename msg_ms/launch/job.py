"""Description of a job of several processes, read from arguments and environment and checked on this node."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ..config import load_config
from ..errors import UserError
from .processes import MARK

PROCESSES_PER_CORE = 4  # more CPU processes must be a mistake


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
        address: Address of the first node.
        port: Port on the first node.
        log_dir: Folder for the logs.
        cluster_timeout: Seconds until all processes must have connected.
        stop_timeout: Seconds between a signal and SIGKILL.
        rank_table: Path of an Ascend rank table, or empty.
    """

    script: Path
    flags: list[str]
    devices: int
    target: str
    nodes: int
    node: int
    address: str
    port: int
    log_dir: Path
    cluster_timeout: int
    stop_timeout: int
    rank_table: str

    def command(self) -> list[str]:
        """Return the msrun command line."""
        options = {
            "worker_num": self.devices * self.nodes,
            "local_worker_num": self.devices,
            "node_rank": self.node,
            "master_addr": self.address,
            "master_port": self.port,
            "log_dir": self.log_dir,
            "join": True,
            "tail_worker_log": 0,
            "cluster_time_out": self.cluster_timeout,
        }
        if self.rank_table:
            options["rank_table_file"] = self.rank_table
        msrun = str(Path(sys.executable).with_name("msrun"))
        return [msrun, *(f"--{name}={value}" for name, value in options.items()), str(self.script), *self.flags]

    def environment(self, mark: str) -> dict[str, str]:
        """Return the environment of all processes, which contains ``mark``."""
        binaries = str(Path(sys.executable).parent)  # msrun starts the "python" of the search path
        own = {"PATH": f"{binaries}:{os.environ.get('PATH', '')}", "PYTHONUNBUFFERED": "1", MARK: mark}
        if self.target == "CPU":
            own["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // self.devices))
        # Seconds without a heartbeat after which a process counts as dead; MindSpore's default is 30.
        return {"MS_NODE_TIMEOUT": "20", "MS_RECEIVE_MSG_TIMEOUT": "20", **os.environ, **own}

    @property
    def first_log(self) -> Path:
        """Log of the first process on this node."""
        return self.log_dir / f"worker_{self.node * self.devices}.log"


def parse_integer(name: str, default: int, least: int = 0) -> int:
    """Return the integer in the environment variable ``name``; raises UserError if it is invalid or below ``least``."""
    text = os.environ.get(name, str(default))
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise UserError(f"{name}={text}: must be an integer of at least {least}")
    return int(text)


def read_job(script: str, devices: str, config: str, data: str, flags: list[str]) -> Job:
    """Read and check a job.

    Args:
        script: ``train.py`` or ``eval.py``.
        devices: Number of devices on this node.
        config: Path of the configuration.
        data: Path of the data set.
        flags: Further arguments of the script.

    Raises:
        UserError: An argument or environment variable is invalid, a file is missing, this node has too few devices,
            or the port cannot be used.
    """
    if not devices.isascii() or not devices.isdigit() or int(devices) < 1:
        raise UserError(f"DEVICE_NUM={devices}: must be an integer of at least 1, the number of devices on this node")
    nodes = parse_integer("NNODES", 1, 1)
    node = parse_integer("NODE_RANK", 0)
    if node >= nodes:
        raise UserError(f"NODE_RANK={node}: must be less than NNODES={nodes}; nodes are numbered from 0")
    address = os.environ.get("MASTER_ADDR", "" if nodes > 1 else "127.0.0.1")
    if not address:
        raise UserError(f"MASTER_ADDR is missing: with NNODES={nodes} each node needs the first node's address")
    load_config(config)
    if not Path(data).is_dir():
        raise UserError(f"DATA_PATH={data} is not a directory")
    target = os.environ.get("DEVICE_TARGET", "")
    check_devices(target, int(devices))
    rank_table = os.environ.get("RANK_TABLE_FILE", "")
    if rank_table and not Path(rank_table).is_file():
        raise UserError(f"RANK_TABLE_FILE={rank_table} does not exist")
    path = Path(__file__).parents[2] / script
    flags = ["--cfg", config, "--data-path", data, *(["--device-target", target] if target else []), *flags]
    job = Job(
        script=path,
        flags=flags,
        devices=int(devices),
        target=target,
        nodes=nodes,
        node=node,
        address=address,
        port=parse_integer("MASTER_PORT", 8118, 1),
        log_dir=Path(os.environ.get("LOG_DIR", "logs")),
        cluster_timeout=parse_integer("CLUSTER_TIMEOUT", 300, 1),
        stop_timeout=parse_integer("STOP_TIMEOUT", 120, 1),
        rank_table=rank_table,
    )
    check_address(job)
    return job


def check_devices(target: str, devices: int) -> None:
    """Raise UserError if this node has fewer devices, as far as this is visible without MindSpore."""
    if target == "CPU":
        cores = os.cpu_count() or 1
        if devices > PROCESSES_PER_CORE * cores:
            raise UserError(
                f"DEVICE_NUM={devices}: this node has {cores} cores; at most {PROCESSES_PER_CORE} processes per core"
            )
    elif target == "GPU":
        tool = shutil.which("nvidia-smi")
        listed = subprocess.run([tool, "-L"], capture_output=True, text=True).stdout if tool else ""
        _require(devices, len(listed.splitlines()), "GPUs (nvidia-smi -L)")
    elif target == "Ascend":
        _require(devices, len(list(Path("/dev").glob("davinci[0-9]*"))), "Ascend devices (/dev/davinci*)")
    elif target:
        raise UserError(f"DEVICE_TARGET={target}: must be CPU, GPU or Ascend")


def _require(devices: int, available: int, kind: str) -> None:
    if devices > available:
        raise UserError(f"DEVICE_NUM={devices}: this node has {available} {kind}")


def check_address(job: Job) -> None:
    """On the first node, raise UserError if the port cannot be used."""
    if job.node != 0:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((job.address, job.port))
        except socket.gaierror:
            raise UserError(f"MASTER_ADDR={job.address} is not a known address") from None
        except OSError as error:
            raise UserError(
                f"MASTER_ADDR={job.address}, MASTER_PORT={job.port} can't be used here ({error.strerror}): use the "
                "first node's own address, or another port"
            ) from None
