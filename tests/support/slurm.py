"""A Slurm cluster of two nodes on this machine, and the jobs in it.

It needs root and the packages slurm-wlm, munge and iproute2. The nodes are network namespaces with their own addresses
and host names.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.script import other_processes  # noqa: E402

EPOCHS = 20
PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "ip", "nsenter", "unshare")
KILL_WAIT = 30  # seconds from SIGTERM to SIGKILL, Slurm's default

CONFIGURATION = """
ClusterName=try
SlurmctldHost={host}(10.78.0.254)
SlurmUser=root
SlurmctldPort=17000
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/{tracker}
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=5
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait={kill_wait}
NodeName=node1 NodeAddr=10.78.0.1 CPUs={cores} State=UNKNOWN
NodeName=node2 NodeAddr=10.78.0.2 CPUs={cores} State=UNKNOWN
PartitionName=debug Nodes=node[1-2] Default=YES MaxTime=30 State=UP
"""


def missing() -> str:
    """Why there can be no cluster here, in words; empty if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    lacking = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
    return f"not installed: {', '.join(lacking)}" if lacking else ""


def run(line: str, **arguments) -> str:
    return subprocess.run(line.split(), check=True, capture_output=True, text=True, **arguments).stdout


@contextlib.contextmanager
def cluster(tracker: str) -> Iterator[None]:
    """Bring up two idle nodes, with SLURM_CONF in this process's environment; ends all daemons and namespaces."""
    # Not pytest's own folder: munge accepts only a path that all users can search.
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        yield from _cluster(Path(folder), tracker)


def _cluster(folder: Path, tracker: str) -> Iterator[None]:
    daemons: list[subprocess.Popen] = []

    def start(*line: str) -> None:
        with (folder / f"daemon{len(daemons)}.out").open("w", encoding="utf-8") as output:
            daemons.append(
                subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
            )

    folder.chmod(0o755)  # for munge's clients
    for name in ("state", "spool/node1", "spool/node2"):
        (folder / name).mkdir(parents=True)
    values = dict(host=socket.gethostname(), folder=folder, tracker=tracker, kill_wait=KILL_WAIT, cores=os.cpu_count())
    (folder / "slurm.conf").write_text(CONFIGURATION.format(**values), encoding="utf-8")
    (folder / "cgroup.conf").write_text("CgroupMountpoint=/sys/fs/cgroup\nCgroupPlugin=autodetect\n", encoding="utf-8")
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(os.urandom(1024))
    previous = {name: os.environ.get(name) for name in ("SLURM_CONF", "PATH")}
    os.environ |= {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    files = {name: f"--{name}={folder}/munge.{name}" for name in ("socket", "pid-file", "log-file", "seed-file")}
    files["socket"] = f"--socket={folder}/munge.sock"
    try:
        start("munged", "-F", f"--key-file={key}", *files.values())
        _connect_nodes()
        start("slurmctld", "-D")
        for node in (1, 2):
            setup = f"mount --bind /etc/netns/node{node}/hosts /etc/hosts; hostname node{node}; exec slurmd -D"
            start("nsenter", f"--net=/run/netns/node{node}", "unshare", "--uts", "--mount", "sh", "-c", setup)
        wait(lambda: subprocess.getoutput("sinfo -h -N -o %T").count("idle") == 2, "two idle nodes", 60)
        yield
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(10)
        _disconnect_nodes()
        for name, value in previous.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def _connect_nodes() -> None:
    _disconnect_nodes()
    run("ip link add slbr type bridge")
    run("ip addr add 10.78.0.254/24 dev slbr")
    run("ip link set slbr up")
    for node in (1, 2):
        run(f"ip netns add node{node}")
        hosts = Path(f"/etc/netns/node{node}/hosts")
        hosts.parent.mkdir(parents=True, exist_ok=True)
        controller = f"10.78.0.254 {socket.gethostname()}"
        # As Debian does it: a node's own name leads to a loopback address, on this node only.
        others = "\n".join(f"{'127.0.1.1' if n == node else f'10.78.0.{n}'} node{n}" for n in (1, 2))
        hosts.write_text(f"127.0.0.1 localhost\n{controller}\n{others}\n", encoding="utf-8")
        run(f"ip link add slv{node} type veth peer name eth0 netns node{node}")
        run(f"ip link set slv{node} master slbr")
        run(f"ip -n node{node} addr add 10.78.0.{node}/24 dev eth0")
        for device in ("eth0", "lo"):
            run(f"ip -n node{node} link set {device} up")
        run(f"ip link set slv{node} up")


def _disconnect_nodes() -> None:
    for node in (1, 2):
        subprocess.run(["ip", "netns", "del", f"node{node}"], capture_output=True)
        shutil.rmtree(f"/etc/netns/node{node}", ignore_errors=True)
    subprocess.run(["ip", "link", "del", "slbr"], capture_output=True)


def wait(ready: Callable[[], bool], name: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise RuntimeError(f"no {name} within {seconds} seconds")
        time.sleep(0.2)


@dataclass
class SlurmJob:
    """A job that was submitted, and all that Slurm printed of it."""

    folder: Path
    number: int

    @property
    def output(self) -> str:
        file = self.folder / f"slurm-{self.number}.out"
        return file.read_text(errors="replace", encoding="utf-8") if file.exists() else ""

    def show(self, name: str) -> str:
        """A field of ``scontrol show job``."""
        return re.search(rf"\b{name}=(\S*)", run(f"scontrol show job -o {self.number}"))[1]

    def wait_for(self, text: str, seconds: float = 180) -> None:
        begin = self.output.count(text)
        try:
            wait(lambda: self.output.count(text) > begin, text, seconds)
        except RuntimeError as error:
            raise RuntimeError(f"{error}:\n{self.output}") from None

    def end(self, seconds: float = 400) -> str:
        """Wait for the job's end, and return its state with the exit status of its script."""
        wait(lambda: self.show("JobState") not in ("PENDING", "RUNNING", "COMPLETING"), "end of the job", seconds)
        wait(lambda: "COMPLETING" not in run(f"squeue -h -o %T -j {self.number}"), "end of the epilogue", 60)
        return f"{self.show('JobState')}, status {self.show('ExitCode').split(':')[0]}"

    def processes(self) -> dict[int, dict[str, str]]:
        """The environments of the job's processes, by process number."""
        return {
            pid: environment
            for pid, (_, environment) in other_processes().items()
            if environment.get("SLURM_JOB_ID") == str(self.number)
        }

    def launcher(self, node: int) -> int:
        """The process number of a node's launcher."""
        (pid,) = (
            pid
            for pid, environment in self.processes().items()
            if environment.get("SLURM_NODEID") == str(node)
            and "MSG_MS_JOB" not in environment
            and b"msg_ms.launch" in Path(f"/proc/{pid}/cmdline").read_bytes()
        )
        return pid

    def worker(self, rank: int) -> int:
        """The process number of a rank."""
        (pid,) = (
            pid
            for pid, environment in self.processes().items()
            if environment.get("MS_ROLE") == "MS_WORKER"
            and environment.get("RANK_ID") == str(rank)
            and os.getsid(pid) == pid
        )
        return pid


def submit(
    folder: Path,
    script: str = "train",
    slurm: str = "",
    flags: tuple[str, ...] = (),
    epochs: int = EPOCHS,
    **variables: str,
) -> SlurmJob:
    """Submit one of the shipped scripts for a small job of one CPU process per node."""
    arguments = ["1", folder / "small.yaml", folder / "data"]
    if script == "evaluate":
        arguments.append(folder / "out" / "small" / "default" / "best.ckpt")
    else:
        flags = (*flags, "--opts", "TRAIN.EPOCHS", str(epochs))
    environment = {**os.environ, "DEVICE_TARGET": "CPU", "PYTHON": sys.executable, "MSG_MS_THREADS": "1", **variables}
    environment.setdefault("LOG_DIR", str(folder / "logs"))
    done = subprocess.run(
        ["sbatch", "--parsable", f"--output={folder}/slurm-%j.out", "--time=20", *slurm.split(),
         ROOT / "scripts" / "slurm" / f"{script}.sbatch", *arguments, "--output", folder / "out", *flags],
        cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", check=True,
    )  # fmt: skip
    return SlurmJob(folder, int(done.stdout.strip().split(";")[0]))
