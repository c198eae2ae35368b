"""What a person watches: one log file per run, plain lines, a progress bar on a terminal, metrics as JSON lines."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ..errors import UserError
from ..files import atomic_write

Item = TypeVar("Item")


class RunLog:
    """Lines go to the terminal and to ``log_rank0.txt``, metrics to ``metrics.jsonl``, both in ``run_dir``.

    A run that is resumed appends to both. Where tensorboardX is installed, the metrics go to ``tensorboard/`` as well.
    A full disk costs lines, never the run.
    """

    def __init__(self, run_dir: Path, rank: int = 0):
        self.run_dir, self.first = run_dir, rank == 0
        self.metrics_file = run_dir / "metrics.jsonl"
        self.scalars = None
        self.logger = logging.getLogger(f"msg_ms.{run_dir}")
        self.logger.setLevel(logging.INFO)
        self.logger.propagate = False
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            handlers = [logging.FileHandler(run_dir / f"log_rank{rank}.txt", encoding="utf-8")]
        except OSError as error:
            raise UserError(f"can't write to the output folder {run_dir}: {error.strerror or error}") from None
        handlers[0].handleError = lambda record: None  # would print a traceback for each line on a full disk
        if rank == 0:
            handlers.append(logging.StreamHandler(sys.stdout))
        for handler in handlers:
            handler.setFormatter(logging.Formatter("[%(asctime)s] %(message)s", "%Y-%m-%d %H:%M:%S"))
            self.logger.addHandler(handler)

    def info(self, line: str) -> None:
        self.logger.info(line)

    def write(self, name: str, text: str) -> None:
        """Write a text file beside the log; the first rank does so for all."""
        if not self.first:
            return
        with atomic_write(self.run_dir / name) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def begin_metrics(self, step: int) -> None:
        """Keep the records up to update ``step``, from where a run that was killed writes the rest again."""
        if not self.first:
            return
        if self.metrics_file.exists():
            kept = [json.dumps(record) + "\n" for record in read_metrics(self.metrics_file) if record["step"] <= step]
            self.write(self.metrics_file.name, "".join(kept))
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            return
        self.scalars = SummaryWriter(str(self.run_dir / "tensorboard"), purge_step=step + 1)

    def metrics(self, **values: Any) -> None:
        """Append one record, which has a ``step``, to ``metrics.jsonl``; the first rank does so for all."""
        if not self.first:
            return
        try:
            with self.metrics_file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(values) + "\n")
        except OSError as error:
            self.info(f"can't write {self.metrics_file}: {error.strerror or error}")
        self.watch(**values)

    def watch(self, step: int, **values: float) -> None:
        """Figures for TensorBoard alone."""
        if self.scalars is not None:
            for name, value in values.items():
                self.scalars.add_scalar(name, value, step)
            self.scalars.flush()

    def close(self) -> None:
        """Hand TensorBoard what is still in its writer's queue."""
        if self.scalars is not None:
            self.scalars.close()

    def progress(self, items: Iterable[Item], total: int, description: str) -> Iterator[tuple[Item, tqdm]]:
        """As :func:`progress`, with this log's lines written above the bar."""
        with logging_redirect_tqdm([self.logger]):
            yield from progress(items, total, description)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a ``metrics.jsonl``, without what a killed run left unfinished."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "step" in record:
            records.append(record)
    return records


def progress(items: Iterable[Item], total: int, description: str) -> Iterator[tuple[Item, tqdm]]:
    """The items, each with a bar to write figures to; the bar shows itself on a terminal only."""
    hidden = not sys.stderr.isatty()
    with tqdm(total=total, desc=description, disable=hidden, leave=False, dynamic_ncols=True) as bar:
        for item in items:
            yield item, bar
            bar.update()
