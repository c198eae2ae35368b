"""Training from Python: the engine of train.py, with callbacks, and the run as an object."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mindspore.train import Callback

from ..config import Config, load_config
from ..engine.callbacks import checked_callbacks
from ..engine.log import RunLog, read_metrics
from ..engine.run_state import checkpoint_files
from ..engine.runtime import start
from ..engine.trainer import Trainer
from ..errors import UserError, shown
from ..files import as_path
from ..tasks import build_task
from .loaded import TrainedModel, as_config, load


def train(
    config: str | os.PathLike[str] | Mapping[str, Any] | Config,
    callbacks: Callback | Sequence[Callback] | None = None,
    *,
    data_path: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    tag: str | None = None,
) -> Run:
    """Train as train.py does, from the newest checkpoint of the run if there is one.

    Ctrl-C and the stop button of a notebook save a checkpoint and return; the same call continues.

    Args:
        config: YAML file, a dictionary of its keys, or a ``Config``.
        callbacks: Objects of classes derived from ``mindspore.train.Callback``, such as ``LossMonitor``.
            ``run_context.request_stop()`` saves and ends the run.
        data_path: Folder of the data set, in place of ``DATA.DATA_PATH``.
        output: Folder of the results, in place of ``OUTPUT``.
        tag: Name of the run, in place of ``TAG``.

    Raises:
        UserError: If the configuration or the data can't be used, or a loss is not finite.
    """
    callbacks = checked_callbacks(callbacks)
    if config is None:
        raise UserError("config=None: must be a YAML file, a dictionary or a Config")
    if tag is not None and not isinstance(tag, str):
        raise UserError(f"tag={shown(tag)}: must be text")
    paths: dict[str, Any] = {
        key: None if value is None else str(as_path(name, value))
        for key, name, value in (("DATA__DATA_PATH", "data_path", data_path), ("OUTPUT", "output", output))
    }
    settings = load_config(config, EVAL_MODE=False, THROUGHPUT_MODE=False, TAG=tag, **paths)
    if not settings.data.data_path:
        raise UserError("data_path is missing: name the folder of the data set")
    runtime = start(settings, build_task)
    model = runtime.task.build_model()
    log = RunLog(runtime.config.run_dir, runtime.ranks.rank)
    try:
        log.info(f"device: {runtime.devices}; output: {log.run_dir} (full configuration in config.yaml)")
        log.info(runtime.task.describe(model))
        Trainer(runtime, model, log, callbacks, ends_at_once=False).fit()
    finally:
        log.close()
    return Run(runtime.config)


class Run:
    """A run that has ended or was stopped; ``msg_ms.train`` returns it.

    Args:
        config: The run's configuration.

    Attributes:
        config: The run's configuration.
        folder: The folder of its results.
        best: The checkpoint with the best weights.
    """

    def __init__(self, config: Config):
        self.config, self.folder = as_config(config), config.run_dir
        self.best = self.folder / "best.ckpt"

    def __repr__(self) -> str:
        """Return the folder, the finished epochs and the last metrics."""
        last = ", ".join(f"{name} {values[-1]:.4g}" for name, values in self.history.items())
        return f"Run({str(self.folder)!r}: {last or 'no finished epoch'})"

    @property
    def history(self) -> dict[str, np.ndarray]:
        """The numbers of ``metrics.jsonl``: an array float64 (epochs,) by name; NaN where one is undefined."""
        file = self.folder / "metrics.jsonl"
        records = [record for record in read_metrics(file) if "epoch" in record] if file.exists() else []
        numbers = [{name: v for name, v in record.items() if not isinstance(v, str)} for record in records]
        names = dict.fromkeys(name for record in numbers for name in record)
        return {
            name: np.array([np.nan if record.get(name) is None else record[name] for record in records], np.float64)
            for name in names
        }

    @property
    def checkpoint(self) -> Path | None:
        """The newest checkpoint to resume from; None if there is none."""
        return next(iter(checkpoint_files(self.folder)), None)

    def load(self) -> TrainedModel:
        """Return the model with the best weights, as ``msg_ms.load`` does.

        Raises:
            UserError: If no epoch was finished.
        """
        if not self.best.exists():
            raise UserError(f"{self.folder} has no best.ckpt: no epoch was finished")
        return load(self.best)
