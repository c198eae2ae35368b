"""Some steps of a run under MindSpore's profiler, and a table of them in the log."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mindspore
from mindspore import profiler as library

from ..errors import UserError
from .log import RunLog
from .meter import Meter

FOLDER = "profile"  # in the run's folder
TABLE_ROWS = 10
NEEDED = ("profile", "schedule", "tensorboard_trace_handler", "ProfilerActivity")
# The profiler's own tables: file, then the columns of operator type, calls and time, and milliseconds per unit of time.
TABLES = (
    ("cpu_op_detail_info_*.csv", "op_type", "op_occurrences", "op_total_time(ms)", 1.0),
    ("gpu_op_type_info_*.csv", "op_type", "type_occurrences", "total_time(us)", 1e-3),
    ("op_statistic.csv", "OP Type", "Count", "Total Time(us)", 1e-3),  # Ascend
)


@dataclass
class Operators:
    """All calls of the operators of one type, or of one native kernel at one place of the model.

    Attributes:
        name: The type, or the kernel's place.
        calls: Number of calls.
        milliseconds: Their time together.
    """

    name: str
    calls: int = 0
    milliseconds: float = 0.0


class StepProfile:
    """Profiles the steps after the first one of a run, which compiles, and logs a table of them.

    Args:
        steps: Number of steps; 0 profiles none and never makes the host wait.
        target: MindSpore's device target.
        rank: The rank of this process; each has a folder of its own.
        log: The log of the run.

    Raises:
        UserError: If this MindSpore has no such profiler.
    """

    def __init__(self, steps: int, target: str, rank: int, log: RunLog):
        self.steps, self.target, self.log = steps, target, log
        self.folder = (log.run_dir / FOLDER / f"rank{rank}").absolute()
        self.before = self.last = -1
        self.profiler: Any = None
        missing = [name for name in NEEDED if not hasattr(library, name)]
        if steps and missing:
            raise UserError(
                f"--profile needs mindspore.profiler.{missing[0]}, which MindSpore {mindspore.__version__} does not "
                "have; MindSpore 2.10 has it"
            )

    def plan(self, step: int, left: int) -> None:
        """Choose the steps.

        Args:
            step: Number of steps before this run.
            left: Steps in the first epoch of this run.

        Raises:
            UserError: If the epoch is too short.
        """
        if self.steps >= left:
            raise UserError(
                f"--profile {self.steps}: the first epoch of this run has {left} steps, and the first step is not "
                f"profiled; {left - 1} is the most"
            )
        self.before, self.last = step, step + self.steps

    def ends_with(self, step: int) -> bool:
        """Return whether ``step``, counted from zero, is the last one in the profile, so that the host must read it."""
        return self.profiler is not None and step == self.last

    def end_step(self, step: int, meter: Meter) -> None:
        """Start, continue or end the profile after a step, counted from zero; ``meter`` leaves the profiler out."""
        if not self.steps:
            return
        if step == self.before:
            self._start()
            meter.restart()
        elif self.profiler is not None:
            waits = self._waits(meter)
            self.profiler.step()  # after the last step it also writes the files
            if step == self.last:
                self.close()
                self._report(waits)
                meter.restart()

    def close(self) -> None:
        """End the profiler, if it runs; a run that stops within the profile has no table."""
        if self.profiler is not None:
            self.profiler.stop()
            self.profiler = None

    def _start(self) -> None:
        kinds = library.ProfilerActivity
        device = {"GPU": "GPU", "Ascend": "NPU"}.get(self.target)
        activities = [kinds.CPU] if device is None else [kinds.CPU, getattr(kinds, device)]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.older = set(self._files())
        self.profiler = library.profile(
            activities=activities,
            schedule=library.schedule(wait=0, warmup=1, active=self.steps, repeat=1),
            on_trace_ready=library.tensorboard_trace_handler(str(self.folder)),
            start_profile=False,
        )
        self.profiler.start()
        self.profiler.step()  # the warm-up is over

    def _waits(self, meter: Meter) -> str:
        """Return the time of the profiled steps and the waits of the host, in words."""
        total = meter.elapsed
        parts = {"for data": meter.waited, "for results": meter.result_wait}
        shares = [f"{1e3 * s / self.steps:.2f} ms {name} ({s / total:.0%})" for name, s in parts.items()]
        return f"{1e3 * total / self.steps:.2f} ms per step; the host waits {' and '.join(shares)}"

    def _files(self) -> Iterator[tuple[Path, int]]:
        """Yield the profiler's tables and the times of their last change."""
        for pattern, *_ in TABLES:
            for path in self.folder.rglob(pattern):
                yield path, path.stat().st_mtime_ns

    def _report(self, waits: str) -> None:
        """Log the waits and the most expensive operators."""
        title = f"profile of steps {self.before + 2} to {self.last + 1}"
        lines = [f"{title}: {waits}"]
        files = sorted(path for path, changed in set(self._files()) - self.older)
        lines += [line for path in files for line in table(operators(path), self.steps)]
        if not files:
            lines.append(f"{title}: MindSpore has written no table of operators")
        for line in (*lines, f"{title}: files in {self.folder}"):
            self.log.info(line)


def operators(path: Path) -> list[Operators]:
    """Return the operators in one of the profiler's tables, the most expensive ones first."""
    ((_, name, calls, time, unit),) = (layout for layout in TABLES if path.match(layout[0]))
    found: dict[str, Operators] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):  # Ascend has one row for each kind of core
            kind = row[name]
            if kind == "Custom" and "full_op_name" in row:  # all native kernels: their places differ
                place = row["full_op_name"].split("/")
                kind = "/".join(place[-3 if "Grad_Custom" in place[-2:] else -2 :])
            entry = found.setdefault(kind, Operators(kind))
            entry.calls += int(row[calls])
            entry.milliseconds += unit * float(row[time])
    return sorted(found.values(), key=lambda entry: -entry.milliseconds)


def table(found: list[Operators], steps: int) -> list[str]:
    """Return the lines of a table of the most expensive operators, with their time per step."""
    total = sum(entry.milliseconds for entry in found) or 1.0
    shown = found[:TABLE_ROWS]
    width = max((len(entry.name) for entry in shown), default=0)
    return [f"{'operator':<{width}} {'calls':>8} {'ms per step':>12} {'share':>6}"] + [
        f"{entry.name:<{width}} {entry.calls:>8} {entry.milliseconds / steps:>12.3f} {entry.milliseconds / total:>6.1%}"
        for entry in shown
    ]
