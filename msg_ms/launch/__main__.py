"""Run a job of several processes under msrun: check it, watch it, and restart it after a failure.

    python -m msg_ms.launch train.py DEVICE_NUM CONFIG DATA_PATH [flags...]

``scripts/run_distribute_train.sh`` and ``run_distribute_eval.sh`` call this command.
Environment variables configure it:

| variable | default | meaning |
|---|---|---|
| DEVICE_TARGET | MindSpore's choice | CPU, GPU or Ascend |
| NNODES, NODE_RANK | 1, 0 | number of nodes, and the index of this one |
| MASTER_ADDR, MASTER_PORT | 127.0.0.1, 8118 | address of the first node (IPv4, IPv6 or a name), and a free port there |
| LOG_DIR | logs | folder of ``worker_<rank>.log``, ``scheduler.log`` and ``launch.log``, for one job at a time |
| MAX_RESTARTS | 0 | how often a failed job is restarted from its newest valid checkpoint |
| CLUSTER_TIMEOUT | 300 | seconds until all nodes must have come, then until all processes must have connected |
| STOP_TIMEOUT | 120 | seconds after a signal to finish the current step and write a checkpoint |
| RANK_TABLE_FILE | none | rank table of an Ascend cluster |

``platforms.py`` lists the clusters whose own variables replace NNODES, NODE_RANK, MASTER_ADDR and MASTER_PORT.

SIGTERM, SIGHUP, SIGUSR1 and Ctrl-C stop a job; a second Ctrl-C ends it at once. Exit status: 0 for a job that has
finished, 75 for a training that was stopped, 143 for an evaluation that was, 2 for an error that a restart can't fix,
else 1.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from ..cli import config_from_arguments, run_command_line, train_parser
from ..engine.run_state import checkpoint_files
from ..engine.stop import SIGNALS, STOPPED
from ..errors import UserError
from .address import reserve_port
from .job import Job, read_job
from .logs import open_logs, remove_logs, say
from .meeting import meet
from .processes import end_with_parent, find_workers, kill_all
from .settings import parse_integer
from .signals import StoppedError, StopSignals, blocked

POLL = 0.5  # seconds
ENDED = 128 + signal.SIGTERM
BACK_OFF = 5  # seconds before a restart; doubled if the last attempt wrote no checkpoint
LAST_LINES = 12
NOISE = ("[WARNING]", "[INFO]")  # prefixes of MindSpore's own log lines
# Log lines of msrun and its scheduler, as seen in MindSpore 2.7.2 to 2.10.0.
SILENT = re.compile(r"The node: (\d+) is timed out")
FAILED = re.compile(r"Worker process (\d+) exit with exception. Error code: (-?\d+)")

Failure = tuple[int | None, int | None]  # rank and exit code of a failed process, if they are known


@dataclass(frozen=True)
class Outcome:
    """Result of a job.

    Attributes:
        status: 0 if the job has finished, ``STOPPED`` if a signal stopped its training, ``ENDED`` if a signal ended
            another job, else 1.
        rank: The first rank that failed, or None if it is not known.
        code: Exit code of that rank; negative for a signal.
        stopped: Whether a signal stopped the job.
    """

    status: int
    rank: int | None = None
    code: int | None = None
    stopped: bool = False


class Watch:
    """One run of a job: prints its first process's output, forwards signals, and leaves no process behind."""

    def __init__(self, job: Job, signals: StopSignals):
        self.job, self.signals = job, signals
        self.mark = uuid.uuid4().hex
        self.signalled: set[int] = set()  # process ids
        self.deadline: float | None = None  # once a signal has come
        self.printed = 0  # bytes of the first process's log
        self.ranks: dict[int, int] = {}  # by process id

    def run(self) -> Outcome:
        """Start the job and wait for its end."""
        remove_logs(self.job)
        log = self.job.launch_log
        command, environment = self.job.command(), self.job.environment(self.mark)
        if not Path(command[0]).exists():
            raise UserError(f"{command[0]} is missing: install MindSpore for {sys.executable}")
        process = None
        try:
            with log.open("x", encoding="utf-8") as output, blocked():  # never through a link of someone else
                process = subprocess.Popen(
                    command,
                    env=environment,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=end_with_parent,
                )
            failures = self._wait(process, log)
        finally:
            kill_all(self.mark)
            if process is not None:
                process.wait()
            self._print_new_lines()
            reported = self.job.stop_file.exists()
            self.job.stop_file.unlink(missing_ok=True)
        return self._outcome(failures, reported)

    def _outcome(self, failures: list[Failure], reported: bool) -> Outcome:
        stopped = self.signals.requested
        if not failures:  # a signal to another node's launcher stops this one's processes too
            return Outcome(STOPPED if reported else 0, stopped=stopped)
        if stopped and any(code in [-number for number in SIGNALS] for _, code in failures):
            # A process ends at once while it starts or compiles, when it has nothing to save.
            return stopped_early(self.job)
        return Outcome(1, *failures[0], stopped=stopped)

    def _wait(self, process: subprocess.Popen, log: Path) -> list[Failure]:
        """Return the failed processes at the end of the job or after the first failure."""
        while True:
            done = process.poll() is not None
            self.ranks |= find_workers(self.mark)
            self._print_new_lines()
            failures = FAILED.findall(read_log(log))
            if failures:
                return [(self.ranks.get(int(pid)), int(code)) for pid, code in failures]
            if done:
                return [] if process.returncode == 0 else [(None, None)]
            if self.signals.requested:
                self._forward_signal()
            if self.signals.insisted or time.monotonic() > (self.deadline or float("inf")):
                return [(None, None)]
            time.sleep(POLL)

    def _forward_signal(self) -> None:
        """Let the processes save and exit, also those that start later."""
        if self.deadline is None:
            self.deadline = time.monotonic() + self.job.stop_timeout
            say(f"stopping {len(self.ranks)} processes within {self.job.stop_timeout} seconds")
        for pid in find_workers(self.mark).keys() - self.signalled:
            self.signalled.add(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def _print_new_lines(self) -> None:
        """Print the new output of the node's first process."""
        with contextlib.suppress(FileNotFoundError):
            with self.job.first_log.open(errors="replace", encoding="utf-8") as file:
                file.seek(self.printed)
                text = file.read()
                self.printed = file.tell()
            lines = [line for line in text.splitlines(True) if not line.startswith(NOISE)]
            say("".join(lines), end="")


def main() -> int:
    """Run the job, and restart it up to MAX_RESTARTS times; returns the exit status."""
    script, devices, config, data, *flags = read_arguments()
    restarts = parse_integer("MAX_RESTARTS", 0)
    job = read_job(script, devices, config, data, flags)
    with StopSignals() as signals, reserve_port(job), open_logs(job) as job:
        try:
            return run_with_restarts(job, restarts, signals)
        except StoppedError:
            return stopped_early(job).status


def stopped_early(job: Job) -> Outcome:
    """Report that a signal has ended a job which had nothing to save."""
    training = job.script.name == "train.py"
    say("stopped before the first step; rerun the same command to resume" if training else "stopped")
    return Outcome(STOPPED if training else ENDED, stopped=True)


def run_with_restarts(job: Job, restarts: int, signals: StopSignals) -> int:
    """Run a job until it ends in order, fails for good, or was restarted ``restarts`` times; returns its status."""
    without_progress = 0
    for attempt in range(restarts + 1):
        before = newest_checkpoint(job)
        outcome = Watch(meet(job, signals.check), signals).run()
        if outcome.status != 1:
            return outcome.status
        explain(job, outcome)
        if outcome.code == 2:
            return 2  # a user error, which a restart would only repeat
        if outcome.stopped or attempt == restarts:
            return 1
        without_progress = without_progress + 1 if newest_checkpoint(job) == before else 0
        if without_progress > 1:
            say("error: two failures without a new checkpoint between them: not restarted", error=True)
            return 1
        pause = BACK_OFF * 2**without_progress
        say(f"restart {attempt + 1} of {restarts} in {pause} seconds")
        signals.pause(pause)
    return 1


def read_arguments() -> list[str]:
    """Return the command's arguments; raises UserError with the usage if some are missing."""
    if len(sys.argv) < 5:
        evaluate = sys.argv[1:2] == ["eval.py"]
        usage = "eval.sh DEVICE_NUM CONFIG DATA_PATH CHECKPOINT" if evaluate else "train.sh DEVICE_NUM CONFIG DATA_PATH"
        raise UserError(f"usage: bash scripts/run_distribute_{usage} [flags...]")
    return sys.argv[1:]


def newest_checkpoint(job: Job) -> str:
    """Return the name of the run's newest checkpoint, which shows whether an attempt made progress."""
    config = config_from_arguments(train_parser().parse_args(job.flags)) if job.script.name == "train.py" else None
    files = checkpoint_files(config.run_dir) if config else []
    return files[0].name if files else ""


def explain(job: Job, outcome: Outcome) -> None:
    """Print which process failed first, with the last lines of its log."""
    rank, reason = outcome.rank, "failed"
    if outcome.code is not None:
        killed = outcome.code < 0
        reason = (
            f"was killed by {signal.Signals(-outcome.code).name}" if killed else f"exited with status {outcome.code}"
        )
    # If one process hangs, the others fail. Only the scheduler knows which one hung.
    silent = SILENT.search(read_log(job.log_dir / "scheduler.log"))
    if silent and outcome.code not in (2, -signal.SIGKILL):
        rank, reason = int(silent[1]), "stopped responding"
    log = job.launch_log if rank is None else job.log_dir / f"worker_{rank}.log"
    if not log.exists():  # on another node
        log = job.first_log
    lines = [line for line in read_log(log).splitlines() if line.strip() and not line.startswith(NOISE)]
    say(f"error: {'the job' if rank is None else f'rank {rank}'} {reason}; last lines of {log}:", error=True)
    say("\n".join(f"  {line}" for line in lines[-LAST_LINES:]), error=True)


def read_log(path: Path) -> str:
    """Return the text of a log, empty if it can't be read."""
    try:
        return path.read_text(errors="replace", encoding="utf-8")
    except OSError:  # removed meanwhile
        return ""


if __name__ == "__main__":
    run_command_line(main)
