"""The progress of a run and its checkpoints: writing, pruning, resuming."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from mindspore import Parameter

from ..checkpoint import (
    EMA_PREFIX,
    OPTIMIZER_PREFIX,
    SCALER_PREFIX,
    Arrays,
    BrokenCheckpoint,
    Metadata,
    load_parameters,
    read_checkpoint,
    select_prefix,
    to_numpy,
    write_checkpoint,
)
from ..config import Config, to_yaml
from ..errors import UserError, shorten
from ..files import remove_partial
from .log import RunLog
from .ranks import SINGLE_PROCESS, Ranks, parameter_bytes

PER_RUN_KEYS = ("OUTPUT", "TAG", "MODEL.RESUME", "MODEL.PRETRAINED", "EVAL_MODE", "THROUGHPUT_MODE", "LOCAL_RANK")
CHECKPOINT_NAME = re.compile(r"ckpt_(\d{8,})\.ckpt")
# Names in checkpoints of earlier versions.
ALIASES = {"world_size": "world", "score": "accuracy", "best_score": "best_accuracy"}


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        epoch: Finished epochs.
        step: Optimizer steps so far.
        epoch_steps: Steps per epoch.
        batch_size: Samples per batch. This, the next three and the seed decide which samples a step sees.
        accumulation: Batches per step and rank.
        world_size: Number of ranks.
        seed: Seed of the run.
        samples: Samples in the data set; 0 in checkpoints of earlier versions.
        score: Primary metric after the last epoch, signed so that larger is better.
        best_score: The best of these.
        best_tie_breaker: The tie-breaking metric of the best epoch, signed likewise.
        loss_sums: Sums of the total loss and the named losses over ``counted`` steps since the last finished epoch.
        counted: Steps with finite loss and gradients since the last finished epoch.
        skipped: Steps skipped because of gradients that were not finite.
        skipped_in_a_row: The last of them without a step in between.
    """

    epoch: int = 0
    step: int = 0
    epoch_steps: int = 0
    batch_size: int = 0
    accumulation: int = 1
    world_size: int = 1
    seed: int = 0
    samples: int = 0
    score: float = -math.inf
    best_score: float = -math.inf
    best_tie_breaker: float = -math.inf
    loss_sums: tuple[float, ...] = ()
    counted: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0

    @property
    def samples_per_step(self) -> int:
        """Samples per step on all ranks."""
        return self.batch_size * self.accumulation * self.world_size

    @property
    def mean_losses(self) -> list[float]:
        """The total loss and the named losses, averaged since the last finished epoch."""
        return [total / max(1, self.counted) for total in self.loss_sums]

    def add_losses(self, losses: list[float]) -> Progress:
        """Return the progress after a step with these losses."""
        sums = self.loss_sums or (0.0,) * len(losses)
        sums = tuple(total + loss for total, loss in zip(sums, losses, strict=True))
        return dataclasses.replace(self, loss_sums=sums, counted=self.counted + 1, skipped_in_a_row=0)

    def to_metadata(self) -> Metadata:
        """Return the fields as metadata of a checkpoint."""
        return {**dataclasses.asdict(self), "loss_sums": json.dumps(self.loss_sums)}

    @classmethod
    def from_metadata(cls, metadata: Metadata) -> Progress:
        """Return the progress in a checkpoint's metadata, which an earlier version may have written."""
        values = {}
        for field in dataclasses.fields(cls):
            name = field.name if field.name in metadata else ALIASES.get(field.name, field.name)
            values[field.name] = metadata.get(name, field.default)
        sums = values["loss_sums"]
        values["loss_sums"] = tuple(json.loads(sums)) if isinstance(sums, str) else sums
        if "loss_sum" in metadata:
            values["loss_sums"] = (metadata["loss_sum"],)
        return cls(**values)

    def resume_into(self, start: Progress) -> tuple[Progress, list[str]]:
        """Continue this progress in a run that would begin as ``start``.

        Returns:
            The progress with the new run's batch layout, and a line for each difference.

        Raises:
            UserError: If the new run would not see the same samples at the same steps.
        """
        theirs = (self.epoch_steps, self.samples_per_step, self.seed)
        ours = (start.epoch_steps, start.samples_per_step, start.seed)
        if theirs != ours:
            raise UserError(
                f"the checkpoint's run made {theirs[0]} steps per epoch of {self.batch_layout} with seed {theirs[2]}; "
                f"this run would make {ours[0]} of {start.batch_layout} with seed {ours[2]}: resume with the same "
                "data, batch size and seed, or start a new run from its weights (--pretrained and another --tag)"
            )
        if self.samples not in (0, start.samples):
            raise UserError(
                f"the checkpoint's run had {self.samples} training samples, and there are {start.samples} now: resume "
                "with the same data, or start a new run from its weights (--pretrained and another --tag)"
            )
        lines = []
        if self.batch_layout != start.batch_layout:
            lines.append(
                f"the {self.samples_per_step} samples of a step were {self.batch_layout} and are now "
                f"{start.batch_layout}: the samples stay the same, but per-batch randomness is drawn again"
            )
        layout = {name: getattr(start, name) for name in ("batch_size", "accumulation", "world_size", "samples")}
        return dataclasses.replace(self, **layout), lines

    @property
    def batch_layout(self) -> str:
        """How the samples of a step are divided, in words."""
        devices = "device" if self.world_size == 1 else "devices"
        batches = f"{self.accumulation} batches" if self.accumulation > 1 else "1 batch"
        return f"{batches} of {self.batch_size} on {self.world_size} {devices}"


def checkpoint_files(run_dir: Path) -> list[Path]:
    """Return the checkpoints that a run wrote, newest first; other files, such as copies of them, do not count."""
    steps = {path: CHECKPOINT_NAME.fullmatch(path.name) for path in run_dir.glob("ckpt_*.ckpt")}
    return sorted((path for path, match in steps.items() if match), key=lambda path: int(steps[path][1]), reverse=True)


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

    def save(self, progress: Progress) -> None:
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
        path = self.run_dir / f"ckpt_{progress.step:08d}.ckpt"
        if self._write(path, arrays, progress):
            for old in self.files()[self.keep_last :]:
                old.unlink(missing_ok=True)

    def save_best(self, progress: Progress) -> None:
        """Write the model's present weights to ``best.ckpt``."""
        if self.ranks.is_main:
            self._write(self.best, to_numpy(self.state[""]), progress)

    def check_ranks(self) -> None:
        """Raise UserError if the ranks' weights differ."""
        remedy = "the devices compute different results, or one is faulty; resume from the last checkpoint"
        self.ranks.assert_same_on_all_ranks("the weights", parameter_bytes(self.state[""].values()), remedy)

    def _write(self, path: Path, arrays: Arrays, progress: Progress) -> bool:
        metadata: Metadata = {**progress.to_metadata(), "config": to_yaml(self.config), **self.metadata}
        try:
            write_checkpoint(path, arrays, metadata)
        except UserError as error:
            self.failure = str(error)
            self.log.info(f"{error}; older checkpoints are untouched")
            return False
        self.failure = ""
        return True

    def restore(self, start: Progress) -> Progress | None:
        """Resume from the newest good checkpoint of the run, or from ``MODEL.RESUME``.

        Only the weights are loaded from a checkpoint without optimizer state, such as a converted one or ``best.ckpt``.
        Rank 0 reads and broadcasts everything.

        Returns:
            The progress; None if the run starts at its beginning.

        Raises:
            UserError: If the checkpoint does not fit this run.
        """

        def read() -> Metadata | None:
            progress = self._restore(start)
            return None if progress is None else progress.to_metadata()

        metadata = self.ranks.run_on_rank0(read)
        self.ranks.broadcast_parameters(parameter for group in self.state.values() for parameter in group.values())
        self.check_ranks()
        return None if metadata is None else Progress.from_metadata(metadata)

    def _restore(self, start: Progress) -> Progress | None:
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
        progress, lines = Progress.from_metadata(metadata).resume_into(start)
        load_parameters(self.state[OPTIMIZER_PREFIX], select_prefix(arrays, OPTIMIZER_PREFIX), path)
        lines += self._load_optional(arrays, path)
        lines += _changed_settings(str(metadata["config"]), self.config)
        self.log.info(f"resuming from {path}: epoch {progress.epoch}, step {progress.step}")
        for line in lines:
            self.log.info(line)
        return progress

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


def _changed_settings(saved: str, config: Config) -> list[str]:
    """Return a line on the keys whose values differ from those in the checkpoint."""
    old, new = _flat(yaml.safe_load(saved)), _flat(yaml.safe_load(to_yaml(config)))
    changed = [
        f"{name} {old.get(name)!r} is now {value!r}"
        for name, value in new.items()
        if name not in PER_RUN_KEYS and old.get(name) != value
    ]
    return [f"changed settings: {shorten(changed, 10)}"] if changed else []


def _flat(tree: dict, prefix: str = "") -> dict[str, object]:
    result: dict[str, object] = {}
    for name, value in tree.items():
        result |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return result
