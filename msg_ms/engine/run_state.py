"""The checkpoints of a run: writing, pruning, resuming."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from mindspore import Parameter

from ..checkpoint import (
    CONFIG_KEY,
    EMA_PREFIX,
    OPTIMIZER_PREFIX,
    SCALER_PREFIX,
    Arrays,
    BrokenCheckpoint,
    Metadata,
    load_parameters,
    read_checkpoint,
    select_prefix,
    stored_config,
    to_numpy,
    write_checkpoint,
)
from ..config import Config, StoredConfig, flat_items, stored_items, to_yaml
from ..errors import UserError, shorten
from ..files import remove_partial
from .log import RunLog
from .ranks import SINGLE_PROCESS, Ranks, parameter_bytes
from .train_state import TrainState

PER_RUN_KEYS = ("OUTPUT", "TAG", "MODEL.RESUME", "MODEL.PRETRAINED", "EVAL_MODE", "THROUGHPUT_MODE", "LOCAL_RANK")
CHECKPOINT_NAME = re.compile(r"ckpt_(\d{8,})\.ckpt")


def checkpoint_files(run_dir: Path) -> list[Path]:
    """Return the checkpoints that a run wrote, newest first; other files, such as copies of them, do not count."""
    matches = ((path, CHECKPOINT_NAME.fullmatch(path.name)) for path in run_dir.glob("ckpt_*.ckpt"))
    steps = {path: int(match[1]) for path, match in matches if match}
    return sorted(steps, key=lambda path: steps[path], reverse=True)


class Checkpoints:
    """The checkpoints of a run: ``ckpt_<step>.ckpt`` to resume from, ``best.ckpt`` with the best weights.

    Args:
        config: The configuration of the run.
        state: Everything that a run consists of, by the prefix of its names: the model's parameters under "", then
            the optimizer's, the loss scaler's and the EMA's.
        log: The log of the run.
        ranks: The ranks of the job; rank 0 writes.
        metadata: The task's text, stored in every checkpoint.
        check_metadata: Is called with the file and the metadata of a checkpoint before a run resumes from it.
    """

    def __init__(
        self,
        config: Config,
        state: Mapping[str, Mapping[str, Parameter]],
        log: RunLog,
        ranks: Ranks = SINGLE_PROCESS,
        metadata: Mapping[str, str] = {},
        check_metadata: Callable[[Path, Metadata], None] = lambda path, metadata: None,
    ):
        self.check_metadata = check_metadata
        self.config, self.state, self.log, self.ranks, self.metadata = config, state, log, ranks, metadata
        self.run_dir, self.keep_last = config.run_dir, config.keep_last
        self.best = self.run_dir / "best.ckpt"
        self.failure = ""  # of the last write, empty if it succeeded
        if ranks.is_main:
            remove_partial(self.run_dir)

    def files(self) -> list[Path]:
        """Return the checkpoints to resume from, newest first."""
        return checkpoint_files(self.run_dir)

    @property
    def newest(self) -> str:
        """The newest checkpoint in words."""
        files = self.files()
        return f"the last checkpoint is {files[0]}" if files else "there is no checkpoint yet"

    def save(self, state: TrainState) -> None:
        """Write a checkpoint to resume from, and remove all but the last ``KEEP_LAST``; rank 0 writes.

        If the disk refuses it, a line is logged, ``failure`` is set, and the older checkpoints stay.

        Raises:
            UserError: If the ranks' weights differ.
        """
        self.check_ranks()
        if not self.ranks.is_main:
            return
        arrays: Arrays = {}
        for prefix, parameters in self.state.items():
            arrays |= to_numpy(parameters, prefix)
        path = self.run_dir / f"ckpt_{state.step:08d}.ckpt"
        if self._write(path, arrays, state):
            for old in self.files()[self.keep_last :]:
                old.unlink(missing_ok=True)

    def save_best(self, state: TrainState) -> None:
        """Write the model's present weights to ``best.ckpt``."""
        if self.ranks.is_main:
            self._write(self.best, to_numpy(self.state[""]), state)

    def check_ranks(self) -> None:
        """Raise UserError if the ranks' weights differ."""
        remedy = "the devices compute different results, or one is faulty; resume from the last checkpoint"
        self.ranks.assert_same_on_all_ranks("the weights", parameter_bytes(self.state[""].values()), remedy)

    def _write(self, path: Path, arrays: Arrays, state: TrainState) -> bool:
        metadata: Metadata = {**state.to_metadata(), CONFIG_KEY: to_yaml(self.config), **self.metadata}
        try:
            write_checkpoint(path, arrays, metadata)
        except UserError as error:
            self.failure = str(error)
            self.log.info(f"{error}; older checkpoints are untouched")
            return False
        self.failure = ""
        return True

    def restore(self, start: TrainState) -> TrainState | None:
        """Resume from the newest good checkpoint of the run, or from ``MODEL.RESUME``.

        Only the weights are loaded from a checkpoint without optimizer state, such as a converted one or ``best.ckpt``.
        Rank 0 reads and broadcasts everything.

        Returns:
            The state; None if the run starts at its beginning.

        Raises:
            UserError: If the checkpoint does not fit this run.
        """

        def read() -> Metadata | None:
            state = self._restore(start)
            return None if state is None else state.to_metadata()

        metadata = self.ranks.run_on_rank0(read)
        self.ranks.broadcast_parameters(parameter for group in self.state.values() for parameter in group.values())
        self.check_ranks()
        return None if metadata is None else TrainState.from_metadata(metadata)

    def _restore(self, start: TrainState) -> TrainState | None:
        checkpoint = self._newest_good()
        resume = self.config.model.resume
        if checkpoint is not None and resume and Path(resume).resolve() != checkpoint[0].resolve():
            self.log.info(
                f"resuming from {checkpoint[0]}, not from {resume}: --resume only starts a new run; use another --tag"
            )
        if checkpoint is None and resume:
            checkpoint = (Path(resume), *read_checkpoint(Path(resume)))
        if checkpoint is None:
            return None
        path, arrays, metadata = checkpoint
        if "step" in metadata:
            self.check_metadata(path, metadata)
        load_parameters(self.state[""], select_prefix(arrays, ""), path)
        if "step" not in metadata or not select_prefix(arrays, OPTIMIZER_PREFIX):
            self.log.info(f"starting from the weights in {path}")
            if EMA_PREFIX in self.state:
                load_parameters(self.state[EMA_PREFIX], select_prefix(arrays, ""), path)
            return None
        state, lines = TrainState.from_metadata(metadata).resume_into(start)
        optimizer = select_prefix(arrays, OPTIMIZER_PREFIX)
        _check_frozen(stored_config(path, metadata), self.config, path)
        load_parameters(self.state[OPTIMIZER_PREFIX], optimizer, path)
        lines += self._load_optional(arrays, path)
        lines += _changed_settings(stored_config(path, metadata), self.config)
        self.log.info(f"resuming from {path}: epoch {state.epoch}, step {state.step}")
        for line in lines:
            self.log.info(line)
        return state

    def _newest_good(self) -> tuple[Path, Arrays, Metadata] | None:
        files = self.files()
        if files and not self.config.train.auto_resume:
            raise UserError(
                f"{self.run_dir} already holds a run ({files[0].name}), and TRAIN.AUTO_RESUME is False: use another "
                "--tag for a new run"
            )
        for path in files:
            try:
                return path, *read_checkpoint(path)
            except BrokenCheckpoint as error:
                self.log.info(f"skipping damaged checkpoint {error}")
        if files:
            raise UserError(f"all checkpoints in {self.run_dir} are damaged: remove them to start over")
        return None

    def _load_optional(self, arrays: Arrays, path: Path) -> list[str]:
        """Load loss scale and EMA if both the run and the checkpoint have them; return lines if only one does."""
        lines = []
        for prefix, name in ((SCALER_PREFIX, "loss scale"), (EMA_PREFIX, "EMA of the weights")):
            saved, targets = select_prefix(arrays, prefix), self.state.get(prefix, {})
            if saved.keys() == targets.keys():
                load_parameters(targets, saved, path)
            elif targets:
                lines.append(f"the checkpoint has no such {name}; it starts now")
                if prefix == EMA_PREFIX:
                    load_parameters(targets, select_prefix(arrays, ""), path)
            else:
                lines.append(f"the checkpoint's {name} is dropped, since this configuration has none")
        return lines


def _check_frozen(stored: StoredConfig | None, config: Config, path: Path) -> None:
    """Raise UserError if other parts were frozen in the checkpoint's run: the optimizer's state differs then."""
    try:
        before = () if stored is None else dict(stored_items(stored)).get("TRAIN.FREEZE", ())
    except UserError:  # a key or value that an earlier version accepted
        return
    if tuple(before) != config.train.freeze:
        raise UserError(
            f"TRAIN.FREEZE={list(config.train.freeze)}: the run of {path} had {list(before)}: resume with the same, or "
            "start a new run from its weights (--pretrained and another --tag)"
        )


def _changed_settings(stored: StoredConfig | None, config: Config) -> list[str]:
    """Return a line on the keys whose values differ from those in the checkpoint."""
    if stored is None:
        return []
    try:
        old = dict(stored_items(stored))
    except UserError as error:  # a key or value that an earlier version accepted
        return [f"the settings can't be compared: {error}"]
    changed = [
        f"{name} {old[name]!r} is now {value!r}"
        for name, value in flat_items(config)
        if name not in PER_RUN_KEYS and old[name] != value
    ]
    return [f"changed settings: {shorten(changed, 10)}"] if changed else []
