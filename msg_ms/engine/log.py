"""Log files, progress bars and metrics of a run."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

from tqdm.auto import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ..errors import UserError
from ..files import ESCAPE, atomic_write, lock_folder

Item = TypeVar("Item")


class RunLog:
    """Writes lines to the terminal and ``log_rank<rank>.txt``, and metrics to ``metrics.jsonl``.

    A resumed run appends to both. On a full disk lines are lost, but the run continues.

    Args:
        run_dir: The folder to write to.
        rank: The rank of this process; only rank 0 prints and writes metrics.

    Raises:
        UserError: If the folder can't be written.
    """

    def __init__(self, run_dir: Path, rank: int = 0):
        self.run_dir, self.is_main = run_dir, rank == 0
        self.metrics_file = run_dir / "metrics.jsonl"
        self._lock: IO[str] | None = None
        self.logger = logging.getLogger(f"msg_ms.{run_dir}")
        self.logger.setLevel(logging.INFO)
        self.logger.propagate = False
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            handlers: list[logging.Handler] = [
                logging.FileHandler(run_dir / f"log_rank{rank}.txt", encoding="utf-8", errors=ESCAPE)
            ]
        except OSError as error:
            raise UserError(f"can't write to the output folder {run_dir}: {error.strerror or error}") from None
        if rank == 0:
            handlers.append(logging.StreamHandler(sys.stdout))
        for handler in handlers:
            setattr(handler, "handleError", _ignore)  # noqa: B010 (a method)
            handler.setFormatter(logging.Formatter("[%(asctime)s] %(message)s", "%Y-%m-%d %H:%M:%S"))
            self.logger.addHandler(handler)

    def info(self, line: str) -> None:
        """Write a line."""
        self.logger.info(line)

    def write(self, name: str, text: str) -> None:
        """Write a text file beside the log, on rank 0."""
        if not self.is_main:
            return
        with atomic_write(self.run_dir / name) as temporary:
            temporary.write_text(text, encoding="utf-8", errors=ESCAPE)

    def lock(self) -> None:
        """Lock the folder for this process until it ends, on rank 0.

        Raises:
            UserError: If another run holds the lock.
        """
        if self.is_main:
            self._lock = lock_folder(self.run_dir)

    def begin_metrics(self, step: int, epoch: int) -> None:
        """Keep the records up to ``step`` and ``epoch``, where a resumed run continues."""
        if not self.is_main:
            return
        if self.metrics_file.exists():
            records = read_metrics(self.metrics_file)
            kept = [json.dumps(r) + "\n" for r in records if r["step"] <= step and r.get("epoch", epoch) <= epoch]
            self.write(self.metrics_file.name, "".join(kept))

    def metrics(self, **values: Any) -> None:
        """Append a record, which has a ``step``, to ``metrics.jsonl``, on rank 0."""
        if not self.is_main:
            return
        try:
            with self.metrics_file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({key: _valid_json(value) for key, value in values.items()}) + "\n")
        except OSError as error:
            self.info(f"can't write {self.metrics_file}: {error.strerror or error}")

    def close(self) -> None:
        """Close the log's files; a process may train several times."""
        for handler in self.logger.handlers[:]:
            self.logger.removeHandler(handler)
            handler.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def progress_bar(self, items: Iterable[Item], total: int, description: str) -> Iterator[tuple[Item, tqdm]]:
        """Yield items as ``progress_bar`` does, with this log's lines written above the bar."""
        with logging_redirect_tqdm([self.logger]):
            for handler in self.logger.handlers:  # tqdm's own handler is among them
                setattr(handler, "handleError", _ignore)  # noqa: B010 (a method)
            yield from progress_bar(items, total, description)


def _ignore(record: logging.LogRecord) -> None:
    """Drop a line on a full disk, or once the reader of a pipe has exited; logging would print a traceback each."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the records of a ``metrics.jsonl``; incomplete lines of a killed run are ignored."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "step" in record:
            records.append(record)
    return records


def progress_bar(items: Iterable[Item], total: int, description: str) -> Iterator[tuple[Item, tqdm]]:
    """Yield each item with a progress bar to write figures to; the bar is shown on a terminal or in a notebook."""
    hidden = not (sys.stderr.isatty() or in_notebook())
    with tqdm(total=total, desc=description, disable=hidden, leave=False, dynamic_ncols=True) as bar:
        for item in items:
            yield item, bar
            bar.update()


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    shell = sys.modules.get("IPython")
    return shell is not None and type(shell.get_ipython()).__name__ == "ZMQInteractiveShell"


def _valid_json(value: Any) -> Any:
    """Return None for numbers that JSON does not have."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
