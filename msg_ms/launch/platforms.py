"""The number of nodes, this node's number and the first one's address, from the user or the platform of a job.

The user's variables NNODES, NODE_RANK, MASTER_ADDR and MASTER_PORT have priority, each for itself. ``PLATFORMS`` lists
the variables of the platforms that are read for the others.

Sources of the names:

- Slurm: srun's manual, "Output environment variables"; run with Slurm 22.05.
- MindCluster: the table "Environment variables injected by Ascend Operator" of its documentation, and
  ``ascend-operator/pkg/controllers/v1`` in its repository.
- ModelArts: "Managing environment variables of a training container" of its user guide.
- Volcano: its documents on the job plugins ``env`` and ``svc``.
- Kubernetes: the page on Indexed Jobs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..errors import UserError
from .settings import integer, setting

PORT = 8118  # MindSpore's default
SLURM_PORTS = range(15000, 25000)  # below the ports of outgoing connections in Linux

Environment = Mapping[str, str]
Source = tuple[str, Callable[[str], str]]  # a variable, and the conversion of its text


@dataclass(frozen=True)
class Platform:
    """A system that starts jobs, and where it has the launcher's variables.

    Attributes:
        name: Its name for people.
        marks: Its variables that show that it has started this process.
        sources: By the launcher's variable, the platform's variable and the conversion of its text.
        check: Raises UserError if the job can't be started as the platform has started this process; accepts the
            environment and the number of devices.
        foreign: Variables for other launchers, which would disturb the processes of this one.
    """

    name: str
    marks: tuple[str, ...]
    sources: Mapping[str, Source]
    check: Callable[[Environment, int], None] = lambda environment, devices: None
    foreign: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """The place of this node in its job.

    Attributes:
        nodes: Number of nodes.
        node: Index of this node.
        numbered: Whether someone has set the index.
        address: Name or address of the first node.
        port: Port on the first node.
        foreign: Variables that the processes must not have.
    """

    nodes: int = 1
    node: int = 0
    numbered: bool = False
    address: str = "127.0.0.1"
    port: int = PORT
    foreign: tuple[str, ...] = field(default=(), repr=False)


def _same(text: str) -> str:
    return text


def first_host(hosts: str) -> str:
    """Return the first of the hosts in a list such as ``gpu[003-005,9]-ib,login`` (Slurm) or ``a,b`` (Volcano)."""
    outside, inside = re.compile(r"[^\[,]*"), re.compile(r"\[(\w+)[^\]]*\]")
    first, position = "", 0
    while position < len(hosts) and hosts[position] != ",":
        match = (inside if hosts[position] == "[" else outside).match(hosts, position)
        if match is None:
            raise UserError(f"the list of hosts {hosts} can't be read: set MASTER_ADDR to the first node's address")
        first += match[match.lastindex or 0]
        position = match.end()
    return first


def _slurm_port(job: str) -> str:
    # Ten steps of a job, and jobs that follow each other, have different ports.
    step = setting("SLURM_STEP_ID")
    number = int(job) * 10 + int(step) % 10 if job.isdigit() and step.isdigit() else 0
    return str(SLURM_PORTS[number % len(SLURM_PORTS)])


def _check_slurm(environment: Environment, devices: int) -> None:
    tasks, nodes = environment.get("SLURM_STEP_NUM_TASKS", ""), environment.get("SLURM_STEP_NUM_NODES", "")
    if environment.get("NNODES", "").strip() or not tasks.isdigit() or not nodes.isdigit() or int(tasks) <= int(nodes):
        return
    if environment.get("SLURM_PROCID", "0") != "0":
        raise SystemExit(2)  # the first task reports it
    raise UserError(
        f"Slurm has started {tasks} tasks on {nodes} nodes, but the launcher starts the processes of a node itself: "
        "use srun --ntasks-per-node=1, and DEVICE_NUM for the number of devices"
    )


def _mindcluster_nodes(workers: str) -> str:
    local = integer(setting("MS_LOCAL_WORKER"), "MS_LOCAL_WORKER", 1)
    number = integer(workers, "MS_WORKER_NUM", 1)
    if number % local:
        raise UserError(f"MS_WORKER_NUM={number} is no multiple of MS_LOCAL_WORKER={local}")
    return str(number // local)


def _check_mindcluster(environment: Environment, devices: int) -> None:
    if environment.get("MS_ROLE") == "MS_SCHED" and environment.get("NPU_POD") == "false":
        raise UserError(
            "this MindCluster pod is a Scheduler without devices, but the launcher starts MindSpore's scheduler on the "
            "first node: request devices for the Scheduler too, and one Worker less"
        )
    local = environment.get("MS_LOCAL_WORKER", "")
    if local != str(devices):
        raise UserError(f"DEVICE_NUM={devices}: MindCluster has given this pod MS_LOCAL_WORKER={local} devices")


def _check_modelarts(environment: Environment, devices: int) -> None:
    local = environment.get("MA_NUM_GPUS", "")
    if local.isdigit() and 0 < int(local) < devices:
        raise UserError(f"DEVICE_NUM={devices}: ModelArts has given this node MA_NUM_GPUS={local} devices")


def _check_volcano(environment: Environment, devices: int) -> None:
    if environment.get("NNODES", "").strip():
        return
    tasks = sorted(name for name in environment if re.fullmatch(r"VC_\w+_HOSTS", name))
    if len(tasks) != 1:
        found = f"several tasks ({', '.join(tasks)})" if tasks else "no VC_<task>_HOSTS, which its plugin svc sets"
        raise UserError(f"the Volcano job has {found}: set NNODES, NODE_RANK and MASTER_ADDR")


def _volcano_task(suffix: str) -> str:
    """Return the name of the variable of the job's only task."""
    names = [name for name in os.environ if re.fullmatch(rf"VC_\w+_{suffix}", name)]
    return names[0] if len(names) == 1 else f"VC_<task>_{suffix}"


PLATFORMS = (
    Platform(
        "Slurm",
        marks=("SLURM_STEP_ID",),
        sources={
            "NNODES": ("SLURM_STEP_NUM_NODES", _same),
            "NODE_RANK": ("SLURM_NODEID", _same),
            "MASTER_ADDR": ("SLURM_STEP_NODELIST", first_host),
            "MASTER_PORT": ("SLURM_JOB_ID", _slurm_port),
        },
        check=_check_slurm,
    ),
    Platform(
        "MindCluster",
        marks=("MS_NODE_RANK", "MS_LOCAL_WORKER"),
        sources={
            "NNODES": ("MS_WORKER_NUM", _mindcluster_nodes),
            "NODE_RANK": ("MS_NODE_RANK", _same),
            "MASTER_ADDR": ("MS_SCHED_HOST", _same),
            "MASTER_PORT": ("MS_SCHED_PORT", _same),
        },
        check=_check_mindcluster,
        # msrun sets its own; a role would make it a worker.
        foreign=("MS_ROLE", "MS_SERVER_NUM", "MS_WORKER_NUM", "MS_LOCAL_WORKER", "MS_SCHED_HOST", "MS_SCHED_PORT"),
    ),
    Platform(
        "ModelArts",
        marks=("MA_NUM_HOSTS",),
        sources={
            "NNODES": ("MA_NUM_HOSTS", _same),
            "NODE_RANK": ("VC_TASK_INDEX", _same),
            "MASTER_ADDR": ("VC_WORKER_HOSTS", first_host),
        },
        check=_check_modelarts,
        # The folder /user/config with jobstart_hccl.json, whose format HCCL does not accept. msrun assigns the ranks.
        foreign=("RANK_TABLE_FILE", "RANK_ID", "RANK_SIZE"),
    ),
    Platform(
        "Volcano",
        marks=("VC_TASK_INDEX",),
        sources={
            "NNODES": ("VC_<task>_NUM", _same),
            "NODE_RANK": ("VC_TASK_INDEX", _same),
            "MASTER_ADDR": ("VC_<task>_HOSTS", first_host),
        },
        check=_check_volcano,
    ),
    Platform(
        # The number of completions is in no variable.
        "Kubernetes Indexed Job",
        marks=("JOB_COMPLETION_INDEX", "NNODES"),
        sources={"NODE_RANK": ("JOB_COMPLETION_INDEX", _same)},
    ),
)


def find_platform() -> Platform | None:
    """Return the first platform of the table whose variables this process has."""
    return next((platform for platform in PLATFORMS if all(map(setting, platform.marks))), None)


def read_place(devices: int) -> Place:
    """Read this node's place in the job.

    Args:
        devices: Number of devices on this node.

    Raises:
        UserError: A variable is invalid or missing, or the platform has started this process in an unsuitable way.
    """
    platform = find_platform()
    if platform is not None:
        platform.check(os.environ, devices)

    def read(name: str) -> tuple[str, str]:
        """Return a setting's text, empty if there is none, and the variable that it is from."""
        if setting(name) or platform is None or name not in platform.sources:
            return setting(name), name
        variable, convert = platform.sources[name]
        if "<task>" in variable:
            variable = _volcano_task(variable.rpartition("_")[2])
        text = setting(variable)
        if not text:
            raise UserError(f"{variable} is missing, which {platform.name} sets: set {name} yourself")
        return convert(text), variable

    text, origin = read("NNODES")
    nodes = integer(text or "1", origin, 1)
    text, origin = (setting("NODE_RANK"), "NODE_RANK") if nodes == 1 else read("NODE_RANK")
    node, numbered = integer(text or "0", origin), bool(text)
    if node >= nodes:
        raise UserError(f"{origin}={node}: must be less than NNODES={nodes}; nodes are numbered from 0")
    address = setting("MASTER_ADDR") or "127.0.0.1" if nodes == 1 else read("MASTER_ADDR")[0]
    if not address:
        raise UserError(f"MASTER_ADDR is missing: with NNODES={nodes} each node needs the first node's address")
    text, origin = read("MASTER_PORT")
    foreign = platform.foreign if platform else ()
    return Place(nodes, node, numbered, address, integer(text or str(PORT), origin, 1), foreign)
