"""A job of several processes, as arguments and environment describe it; checked as far as one node can tell."""

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

PROCESSES_PER_CORE = 4  # more CPU processes than that can only be a mistake


@dataclass(frozen=True)
class Job:
    """What is to run on this node."""

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
        line = [
            str(Path(sys.executable).with_name("msrun")), f"--worker_num={self.devices * self.nodes}",
            f"--local_worker_num={self.devices}", f"--node_rank={self.node}", f"--master_addr={self.address}",
            f"--master_port={self.port}", f"--log_dir={self.log_dir}", "--join=True", "--tail_worker_log=0",
            f"--cluster_time_out={self.cluster_timeout}",
        ]  # fmt: skip
        if self.rank_table:
            line.append(f"--rank_table_file={self.rank_table}")
        return [*line, str(self.script), *self.flags]

    def environment(self, mark: str) -> dict[str, str]:
        binaries = str(Path(sys.executable).parent)  # msrun starts what "python" is on the path
        own = {"PATH": f"{binaries}:{os.environ.get('PATH', '')}", "PYTHONUNBUFFERED": "1", MARK: mark}
        if self.target == "CPU":
            own["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // self.devices))
        # Seconds after which a process that gives no sign of life is taken for dead; MindSpore's default is 30.
        return {"MS_NODE_TIMEOUT": "20", "MS_RECEIVE_MSG_TIMEOUT": "20", **os.environ, **own}

    @property
    def first_log(self) -> Path:
        return self.log_dir / f"worker_{self.node * self.devices}.log"


def whole_number(name: str, default: int, least: int = 0) -> int:
    """The environment's ``name`` as a number."""
    text = os.environ.get(name, str(default))
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise UserError(f"{name}={text}: must be a whole number of at least {least}")
    return int(text)


def read_job(script: str, devices: str, config: str, data: str, flags: list[str]) -> Job:
    """The job that arguments and environment describe, with everything checked that this node can tell."""
    if not devices.isascii() or not devices.isdigit() or int(devices) < 1:
        raise UserError(f"DEVICE_NUM={devices}: must be a whole number of at least 1, the devices on this node")
    nodes = whole_number("NNODES", 1, 1)
    node = whole_number("NODE_RANK", 0)
    if node >= nodes:
        raise UserError(f"NODE_RANK={node}: nodes are numbered from 0, and NNODES={nodes}")
    address = os.environ.get("MASTER_ADDR", "" if nodes > 1 else "127.0.0.1")
    if not address:
        raise UserError(f"MASTER_ADDR is missing: with NNODES={nodes} all nodes need the first one's address")
    load_config(config)
    if not Path(data).is_dir():
        raise UserError(f"DATA_PATH={data} is no folder")
    target = os.environ.get("DEVICE_TARGET", "")
    check_devices(target, int(devices))
    rank_table = os.environ.get("RANK_TABLE_FILE", "")
    if rank_table and not Path(rank_table).is_file():
        raise UserError(f"RANK_TABLE_FILE={rank_table}: there is no such file")
    path = Path(__file__).parents[2] / script
    flags = ["--cfg", config, "--data-path", data, *(["--device-target", target] if target else []), *flags]
    job = Job(
        path, flags, int(devices), target, nodes, node, address, whole_number("MASTER_PORT", 8118, 1),
        Path(os.environ.get("LOG_DIR", "logs")), whole_number("CLUSTER_TIMEOUT", 300, 1),
        whole_number("STOP_TIMEOUT", 120, 1), rank_table,
    )  # fmt: skip
    check_address(job)
    return job


def check_devices(target: str, wanted: int) -> None:
    """Raise UserError where this node has fewer devices, as far as can be told without MindSpore."""
    if target == "CPU":
        cores = os.cpu_count() or 1
        if wanted > PROCESSES_PER_CORE * cores:
            raise UserError(f"DEVICE_NUM={wanted}: this node has {cores} cores; at most {PROCESSES_PER_CORE} a core")
    elif target == "GPU":
        tool = shutil.which("nvidia-smi")
        listed = subprocess.run([tool, "-L"], capture_output=True, text=True).stdout if tool else ""
        _refuse_fewer(wanted, len(listed.splitlines()), "GPUs (nvidia-smi -L)")
    elif target == "Ascend":
        _refuse_fewer(wanted, len(list(Path("/dev").glob("davinci[0-9]*"))), "Ascend devices (/dev/davinci*)")
    elif target:
        raise UserError(f"DEVICE_TARGET={target}: must be CPU, GPU or Ascend")


def _refuse_fewer(wanted: int, found: int, what: str) -> None:
    if wanted > found:
        raise UserError(f"DEVICE_NUM={wanted}: this node has {found} {what}")


def check_address(job: Job) -> None:
    """On the first node, raise UserError where the port can't be taken."""
    if job.node != 0:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((job.address, job.port))
        except socket.gaierror:
            raise UserError(f"MASTER_ADDR={job.address} is no known address") from None
        except OSError as error:
            raise UserError(
                f"MASTER_ADDR={job.address}, MASTER_PORT={job.port} can't be used here ({error.strerror}): choose the "
                "first node's own address, and another port"
            ) from None
