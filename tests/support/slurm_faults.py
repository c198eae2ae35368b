"""What happens to a training job in Slurm: python tests/support/slurm_faults.py [cgroup|linuxproc] [fault...]

The table has the shipped sbatch files under both process trackers: ``proctrack/cgroup`` signals the first process of a
task, ``proctrack/linuxproc`` every process. Its columns: the fault, the tracker, the job's state and its script's exit
status, restarts by Slurm, seconds from the fault to the end, processes of the job that are left, the last line of
interest in Slurm's output, the result of the same command again.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.slurm import SlurmJob, cluster, run, submit, wait  # noqa: E402
from support.small_run import CONFIG, write_images  # noqa: E402

TRACKERS = ("cgroup", "linuxproc")


@dataclass
class Row:
    """A line of the table."""

    fault: str
    state: str
    seconds: float
    left: int
    reads: str
    again: str = ""
    restarts: int = 0
    processes: list[str] = field(default_factory=list)
    output: str = ""


def row(name: str, job: SlurmJob, since: float, again: bool = False, seconds: float = 400) -> Row:
    """The table's row for a job that is about to end; submits it again with ``again``."""
    state = job.end(seconds)
    duration = time.monotonic() - since
    left = [Path(f"/proc/{pid}/cmdline").read_text("utf-8") for pid in job.processes()]
    words = ("error:", "stopped", "resuming", "training finished", "top-1")
    lines = [
        line.split("] ")[-1].strip()
        for line in job.output.splitlines()
        if any(word in line for word in words) and not line.startswith(("srun:", "slurmstepd"))
    ]
    found = Row(name, state, duration, len(left), lines[-1] if lines else "", processes=left, output=job.output)
    found.restarts = int(job.show("Restarts"))
    if again:
        repeated = submit(job.folder)
        state = repeated.end()
        resumed = [line.split("] ")[-1] for line in repeated.output.splitlines() if "resuming from" in line]
        found.again = f"{resumed[0].rpartition('/')[2] if resumed else 'starts over'}; {state}"
    return found


def training(folder: Path, **arguments) -> SlurmJob:
    """A job in its second epoch."""
    job = submit(folder, **arguments)
    job.wait_for("epoch 2/")
    return job


def finished(folder: Path) -> Row:
    return row("none", submit(folder, epochs=2), time.monotonic())


def cancelled(folder: Path) -> Row:
    job = training(folder)
    run(f"scancel {job.number}")
    return row("scancel", job, time.monotonic(), again=True)


def cancelled_while_compiling(folder: Path) -> Row:
    job = submit(folder)
    job.wait_for("; compiling")
    time.sleep(1)
    run(f"scancel {job.number}")
    return row("scancel while compiling", job, time.monotonic())


def requeued(folder: Path) -> Row:
    job = training(folder, epochs=60)
    begin = time.monotonic()
    run(f"scontrol requeue {job.number}")
    job.wait_for("resuming from", 300)
    return row("scontrol requeue", job, begin)


def warned(folder: Path) -> Row:
    """The warning of ``--signal``, sent now instead of some minutes later."""
    job = training(folder, script="requeue", epochs=60)
    begin = time.monotonic()
    run(f"scancel --signal=USR1 {job.number}")
    job.wait_for("resuming from", 300)
    return row("--signal=USR1 with requeue.sbatch", job, begin)


def warned_and_cancelled(folder: Path) -> Row:
    job = training(folder, script="requeue", epochs=60)
    run(f"scancel {job.number}")
    return row("scancel of requeue.sbatch", job, time.monotonic())


def time_limit(folder: Path) -> Row:
    job = training(folder, slurm="--time=2", epochs=100_000)
    return row("time limit", job, time.monotonic(), seconds=300)


def worker_killed(folder: Path) -> Row:
    job = training(folder)
    os.kill(job.worker(1), signal.SIGKILL)
    return row("SIGKILL of rank 1", job, time.monotonic(), again=True)


def launcher_killed(folder: Path) -> Row:
    job = training(folder, epochs=100_000)
    os.kill(job.launcher(1), signal.SIGKILL)
    return row("SIGKILL of the second node's launcher", job, time.monotonic())


def one_node_stopped(folder: Path) -> Row:
    job = training(folder)
    os.kill(job.launcher(1), signal.SIGTERM)
    return row("SIGTERM to the second node's launcher", job, time.monotonic(), again=True)


def too_many_tasks(folder: Path) -> Row:
    return row("2 tasks per node", submit(folder, slurm="--ntasks-per-node=2"), time.monotonic())


def two_jobs(folder: Path) -> Row:
    """Both have the default of MASTER_PORT, and run at the same time on the same nodes."""
    jobs = [submit(folder, epochs=2, flags=("--tag", name), LOG_DIR=str(folder / name)) for name in ("a", "b")]
    wait(lambda: all(job.show("JobState") == "RUNNING" for job in jobs), "two running jobs", 60)
    begin = time.monotonic()
    first = jobs[0].end()
    result = row("two jobs at once", jobs[1], begin)
    result.again, result.left = f"the other job: {first}", result.left + len(jobs[0].processes())
    return result


def evaluated(folder: Path) -> Row:
    submit(folder, epochs=2).end()
    return row("none, evaluate.sbatch", submit(folder, script="evaluate"), time.monotonic())


FAULTS: dict[str, Callable[[Path], Row]] = {
    function.__name__: function
    for function in (
        finished, evaluated, cancelled, cancelled_while_compiling, requeued, warned, warned_and_cancelled, time_limit,
        worker_killed, launcher_killed, one_node_stopped, too_many_tasks, two_jobs,
    )
}  # fmt: skip


def run_fault(name: str, folder: Path) -> Row:
    write_images(folder)
    text = CONFIG.replace("BATCH_SIZE: 4", "BATCH_SIZE: 2")
    (folder / "small.yaml").write_text(text + "SAVE_STEPS: 2\n", encoding="utf-8")
    return FAULTS[name](folder)


def main() -> None:
    names = sys.argv[1:]
    trackers = [name for name in names if name in TRACKERS] or TRACKERS
    for tracker in trackers:
        with cluster(tracker):
            for name in [name for name in names if name in FAULTS] or FAULTS:
                with tempfile.TemporaryDirectory() as own:
                    r = run_fault(name, Path(own))
                cells = (r.fault, tracker, r.state, r.restarts, f"{r.seconds:.0f}", r.left, r.reads, r.again)
                print("|", " | ".join(map(str, cells)), "|", flush=True)


if __name__ == "__main__":
    main()
