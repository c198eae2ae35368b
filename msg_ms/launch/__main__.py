"""A job of several processes under msrun: checked before it starts, watched to its end, started again where asked.

    python -m msg_ms.launch train.py DEVICE_NUM CONFIG DATA_PATH [flags...]

is what ``scripts/run_distribute_train.sh`` and ``run_distribute_eval.sh`` call. The environment has their settings:

| variable | default | what |
|---|---|---|
| DEVICE_TARGET | MindSpore's choice | CPU, GPU or Ascend |
| NNODES, NODE_RANK | 1, 0 | how many nodes there are, and which one this is |
| MASTER_ADDR, MASTER_PORT | 127.0.0.1, 8118 | where all meet: the first node's address, and a free port there |
| LOG_DIR | logs | what the processes print: ``worker_<rank>.log``, ``scheduler.log``, ``launch.log`` |
| MAX_RESTARTS | 0 | how often a job that failed is started again, from its newest good checkpoint |
| CLUSTER_TIMEOUT | 300 | seconds in which all processes must have met |
| STOP_TIMEOUT | 120 | seconds that SIGTERM or Ctrl-C leave for the update at hand and the checkpoint |
| RANK_TABLE_FILE | none | for an Ascend cluster that is described by one |
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
from dataclasses import dataclass, field
from pathlib import Path

from ..cli import config_from_arguments, run_command_line, train_parser
from ..errors import UserError
from .job import Job, read_job, whole_number
from .processes import find_workers, kill_all

POLL = 0.5  # seconds
BACK_OFF = 5  # seconds before a restart; twice as many where the last one brought no checkpoint
LAST_LINES = 12
NOISE = ("[WARNING]", "[INFO]")  # what MindSpore's own lines begin with
SILENT = re.compile(r"The node: (\d+) is timed out")
FAILED = re.compile(r"Worker process (\d+) exit with exception. Error code: (-?\d+)")


@dataclass
class Outcome:
    """How a job ended: ``rank`` is the first that failed, with its exit ``code``, None where that is not known."""

    status: int
    rank: int | None = None
    code: int | None = None
    stopped: bool = False


@dataclass
class Watch:
    """Runs a job once: prints what its first process prints, passes signals on, leaves nothing running."""

    job: Job
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    signals: int = 0
    deadline: float = float("inf")
    shown: int = 0
    ranks: dict[int, int] = field(default_factory=dict)  # of process numbers

    def run(self) -> Outcome:
        self.job.log_dir.mkdir(parents=True, exist_ok=True)
        for old in self.job.log_dir.glob("*.log"):
            old.unlink()
        log = self.job.log_dir / "launch.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                self.job.command(), env=self.job.environment(self.mark), stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        previous = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            failed = self._wait(process, log)
        finally:
            kill_all(self.mark)
            process.wait()
            self._show()
            for number, handler in previous.items():
                signal.signal(number, handler)
        if failed is None:
            status = process.returncode if not self.signals else 0
            return Outcome(int(status != 0), stopped=self.signals > 0)
        return Outcome(1, *failed, stopped=self.signals > 0)

    def _wait(self, process: subprocess.Popen, log: Path) -> tuple[int | None, int | None] | None:
        """(rank, exit code) of the first process that failed, None where none did."""
        passed_on = 0
        while True:
            done = process.poll() is not None
            self.ranks |= find_workers(self.mark)
            self._show()
            failed = FAILED.search(log.read_text(errors="replace"))
            if failed:
                return self.ranks.get(int(failed[1])), int(failed[2])
            if done:
                return None if process.returncode == 0 else (None, None)
            if self.signals > passed_on:
                passed_on = self.signals
                self._pass_on()
            if time.monotonic() > self.deadline:
                return None, None
            time.sleep(POLL)

    def _on_signal(self, number: int, frame: object) -> None:
        self.signals += 1

    def _pass_on(self) -> None:
        """The first signal lets the processes save and end, the second ends them at once."""
        if self.signals > 1:
            self.deadline = 0.0
            return
        self.deadline = time.monotonic() + self.job.stop_timeout
        print(f"stopping {len(self.ranks)} processes, in at most {self.job.stop_timeout} seconds", flush=True)
        for pid in find_workers(self.mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def _show(self) -> None:
        """Print what the node's first process has printed since."""
        if self.job.first_log.exists():
            with self.job.first_log.open(errors="replace") as file:
                file.seek(self.shown)
                text = file.read()
                self.shown = file.tell()
            lines = [line for line in text.splitlines(True) if not line.startswith(NOISE)]
            sys.stdout.write("".join(lines))
            sys.stdout.flush()


def main() -> int:
    script, devices, config, data, *flags = read_arguments()
    job = read_job(script, devices, config, data, flags)
    restarts, in_vain = whole_number("MAX_RESTARTS", 0), 0
    for attempt in range(restarts + 1):
        before = newest_checkpoint(job)
        outcome = Watch(job).run()
        if outcome.status == 0:
            return 0
        explain(job, outcome)
        if outcome.code == 2:
            return 2  # the person's mistake, which a restart would meet again
        if outcome.stopped or attempt == restarts:
            return 1
        in_vain = in_vain + 1 if newest_checkpoint(job) == before else 0
        if in_vain > 1:
            print("error: failed again without a checkpoint in between: not started again", file=sys.stderr)
            return 1
        pause = BACK_OFF * 2**in_vain
        print(f"restart {attempt + 1} of {restarts} in {pause} seconds", flush=True)
        time.sleep(pause)
    return 1


def read_arguments() -> list[str]:
    if len(sys.argv) < 5:
        evaluate = sys.argv[1:2] == ["eval.py"]
        usage = "eval.sh DEVICE_NUM CONFIG DATA_PATH CHECKPOINT" if evaluate else "train.sh DEVICE_NUM CONFIG DATA_PATH"
        raise UserError(f"usage: bash scripts/run_distribute_{usage} [flags...]")
    return sys.argv[1:]


def newest_checkpoint(job: Job) -> str:
    """The name of the run's newest checkpoint: tells whether a restart got further."""
    config = config_from_arguments(train_parser().parse_args(job.flags)) if job.script.name == "train.py" else None
    files = sorted(config.run_dir.glob("ckpt_*.ckpt")) if config else []
    return files[-1].name if files else ""


def explain(job: Job, outcome: Outcome) -> None:
    """Say which process failed first, with its last lines."""
    rank, how = outcome.rank, "failed"
    if outcome.code is not None:
        killed = outcome.code < 0
        how = f"was killed by {signal.Signals(-outcome.code).name}" if killed else f"ended with status {outcome.code}"
    # Where a process hangs, the others fail: the scheduler knows which it was.
    silent = SILENT.search(read_log(job.log_dir / "scheduler.log"))
    if silent and outcome.code != 2 and outcome.code != -signal.SIGKILL:
        rank, how = int(silent[1]), "gave no sign of life any more"
    log = job.log_dir / ("launch.log" if rank is None else f"worker_{rank}.log")
    if not log.exists():  # on another node
        log = job.first_log
    lines = [line for line in read_log(log).splitlines() if line.strip() and not line.startswith(NOISE)]
    print(f"error: {'the job' if rank is None else f'rank {rank}'} {how}; the end of {log}:", file=sys.stderr)
    print("\n".join(f"  {line}" for line in lines[-LAST_LINES:]), file=sys.stderr, flush=True)


def read_log(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


if __name__ == "__main__":
    run_command_line(main)
