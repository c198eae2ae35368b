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

Item = TypeVar("Item")


class RunLog:
    """Lines go to the terminal and to ``log_rank0.txt``, metrics to ``metrics.jsonl``, both in ``run_dir``.

    A run that is resumed appends to both.
    """

    def __init__(self, run_dir: Path, rank: int = 0):
        self.run_dir = run_dir
        self.logger = logging.getLogger(f"msg_ms.{run_dir}")
        self.logger.setLevel(logging.INFO)
        self.logger.propagate = False
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            handlers = [logging.FileHandler(run_dir / f"log_rank{rank}.txt", encoding="utf-8")]
        except OSError as error:
            raise UserError(f"can't write to the output folder {run_dir}: {error.strerror or error}") from None
        if rank == 0:
            handlers.append(logging.StreamHandler(sys.stdout))
        for handler in handlers:
            handler.setFormatter(logging.Formatter("[%(asctime)s] %(message)s", "%Y-%m-%d %H:%M:%S"))
            self.logger.addHandler(handler)

    def info(self, line: str) -> None:
        self.logger.info(line)

    def write(self, name: str, text: str) -> None:
        """Write a text file beside the log."""
        (self.run_dir / name).write_text(text, encoding="utf-8")

    def metrics(self, **values: Any) -> None:
        """Append one record to ``metrics.jsonl``."""
        with (self.run_dir / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def progress(self, items: Iterable[Item], total: int, description: str) -> Iterator[tuple[Item, tqdm]]:
        """As :func:`progress`, with this log's lines written above the bar."""
        with logging_redirect_tqdm([self.logger]):
            yield from progress(items, total, description)


def progress(items: Iterable[Item], total: int, description: str) -> Iterator[tuple[Item, tqdm]]:
    """The items, each with a bar to write figures to; the bar shows itself on a terminal only."""
    hidden = not sys.stderr.isatty()
    with tqdm(total=total, desc=description, disable=hidden, leave=False, dynamic_ncols=True) as bar:
        for item in items:
            yield item, bar
            bar.update()
