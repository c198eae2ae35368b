"""Where a run stands, and the checkpoints that keep it: which are written, which stay, which one a run goes on from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
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


@dataclass(frozen=True)
class Progress:
    """Where a run stands: epochs finished, updates made, accuracies in percent of the last and the best epoch.

    ``epoch_steps`` updates make an epoch, each of ``accumulation`` batches of ``batch_size`` images on ``world``
    devices. These and the seed decide which pictures an update sees. ``loss_sum`` is over the ``counted`` updates
    since the last finished epoch; ``skipped`` were left out for gradients that were not finite, the last
    ``skipped_in_a_row`` of them one after the other.
    """

    epoch: int = 0
    step: int = 0
    epoch_steps: int = 0
    batch_size: int = 0
    accumulation: int = 1
    world: int = 1
    seed: int = 0
    accuracy: float = 0.0
    best_accuracy: float = 0.0
    loss_sum: float = 0.0
    counted: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0

    @property
    def images_per_update(self) -> int:
        return self.batch_size * self.accumulation * self.world

    def follow(self, start: Progress) -> tuple[Progress, list[str]]:
        """This progress in a run that would begin as ``start``, and lines on what differs.

        Raises UserError where the run would not see the pictures that this progress stands for.
        """
        theirs = (self.epoch_steps, self.images_per_update, self.seed)
        ours = (start.epoch_steps, start.images_per_update, start.seed)
        if theirs != ours:
            raise UserError(
                f"the checkpoint's run made {theirs[0]} updates an epoch of {self.cut} with seed {theirs[2]}; this one "
                f"would make {ours[0]} of {start.cut} with seed {ours[2]}: go on with the data, batch size and seed it "
                "began with, or start afresh from its weights (--pretrained and another --tag)"
            )
        lines = []
        if self.cut != start.cut:
            lines.append(
                f"an update's {self.images_per_update} images were {self.cut} and are now {start.cut}: the same "
                "pictures, but Mixup, CutMix and stochastic depth draw anew"
            )
        cut = {name: getattr(start, name) for name in ("batch_size", "accumulation", "world")}
        return dataclasses.replace(self, **cut), lines

    @property
    def cut(self) -> str:
        """How an update's images are divided, in words."""
        devices = "device" if self.world == 1 else "devices"
        times = f"{self.accumulation} batches" if self.accumulation > 1 else "1 batch"
        return f"{times} of {self.batch_size} images on {self.world} {devices}"


class Checkpoints:
    """The checkpoints of a run, in its folder: ``ckpt_<update>.ckpt`` to go on from, ``best.ckpt`` the best weights.

    ``state`` holds what a run consists of by the prefix of its names: the model's parameters under "", the
    optimizer's, the loss scaler's and the averages under theirs. ``classes`` are noted, for who predicts.
    """

    def __init__(
        self,
        config: Config,
        state: Mapping[str, Mapping[str, Parameter]],
        log: RunLog,
        ranks: Ranks = SINGLE_PROCESS,
        classes: Sequence[str] = (),
    ):
        self.config, self.state, self.log, self.ranks, self.classes = config, state, log, ranks, classes
        self.run_dir, self.keep = config.run_dir, config.keep_last
        self.best = self.run_dir / "best.ckpt"
        self.failure = ""  # of the last write, empty where it went well
        if ranks.first:
            remove_partial(self.run_dir)

    def files(self) -> list[Path]:
        """The checkpoints to go on from, newest first."""
        return sorted(self.run_dir.glob("ckpt_[0-9]*.ckpt"), reverse=True)

    @property
    def newest(self) -> str:
        """The newest checkpoint in words, for an error's text."""
        files = self.files()
        return f"the last checkpoint is {files[0]}" if files else "there is no checkpoint yet"

    def save(self, progress: Progress) -> None:
        """Write everything, and remove what is older than the last ``KEEP_LAST``; the first rank does so for all.

        A disk that takes no more is told and leaves ``failure``; the older checkpoints stay, and the run may go on.
        Raises UserError where the ranks' weights have come to differ.
        """
        self.check_ranks()
        if not self.ranks.first:
            return
        arrays: Arrays = {}
        for prefix, parameters in self.state.items():
            arrays |= to_numpy(parameters, prefix)
        path = self.run_dir / f"ckpt_{progress.step:08d}.ckpt"
        if self._write(path, arrays, progress):
            for old in self.files()[self.keep :]:
                old.unlink(missing_ok=True)

    def save_best(self, progress: Progress) -> None:
        """Write the weights that the model has now as the best."""
        if self.ranks.first:
            self._write(self.best, to_numpy(self.state[""]), progress)

    def check_ranks(self) -> None:
        """Raise UserError where the ranks' weights differ."""
        remedy = "the devices don't compute the same, or one is faulty; go on from the last checkpoint"
        self.ranks.assert_same_on_all_ranks("the weights", parameter_bytes(self.state[""].values()), remedy)

    def _write(self, path: Path, arrays: Arrays, progress: Progress) -> bool:
        notes: Metadata = {**dataclasses.asdict(progress), "config": to_yaml(self.config)}
        if self.classes:
            notes["classes"] = json.dumps(list(self.classes))
        try:
            write_checkpoint(path, arrays, notes)
        except UserError as error:
            self.failure = str(error)
            self.log.info(f"{error}; older checkpoints are untouched")
            return False
        self.failure = ""
        return True

    def restore(self, start: Progress) -> Progress | None:
        """Go on from the run's newest good checkpoint, or from ``MODEL.RESUME``; None where it is at its beginning.

        A checkpoint without an optimizer's state (a converted one, or ``best.ckpt``) gives its weights only. The first
        rank reads, and passes everything on to the others.
        """

        def read() -> dict | None:
            progress = self._restore(start)
            return None if progress is None else dataclasses.asdict(progress)

        fields = self.ranks.run_on_rank0(read)
        self.ranks.share(parameter for group in self.state.values() for parameter in group.values())
        self.check_ranks()
        return None if fields is None else Progress(**fields)

    def _restore(self, start: Progress) -> Progress | None:
        found = self._newest_good()
        resume = self.config.model.resume
        if found is not None and resume and Path(resume).resolve() != found[0].resolve():
            self.log.info(
                f"going on from {found[0]} and not from {resume}, which only begins a run: another --tag does"
            )
        if found is None and resume:
            found = (Path(resume), *read_checkpoint(Path(resume)))
        if found is None:
            return None
        path, arrays, notes = found
        load_parameters(self.state[""], select_prefix(arrays, ""), path)
        if "step" not in notes or not select_prefix(arrays, OPTIMIZER_PREFIX):
            self.log.info(f"starting from the weights in {path}")
            load_parameters(
                self.state.get(EMA_PREFIX, {}), select_prefix(arrays, "") if EMA_PREFIX in self.state else {}, path
            )
            return None
        progress = Progress(**{field.name: notes[field.name] for field in dataclasses.fields(Progress)})
        progress, lines = progress.follow(start)
        load_parameters(self.state[OPTIMIZER_PREFIX], select_prefix(arrays, OPTIMIZER_PREFIX), path)
        lines += self._load_optional(arrays, path)
        lines += _differences(str(notes["config"]), self.config)
        self.log.info(f"going on from {path}, after epoch {progress.epoch} and update {progress.step}")
        for line in lines:
            self.log.info(line)
        return progress

    def _newest_good(self) -> tuple[Path, Arrays, Metadata] | None:
        files = self.files()
        if files and not self.config.train.auto_resume:
            raise UserError(
                f"{self.run_dir} holds a run already ({files[0].name}), and TRAIN.AUTO_RESUME is False: choose another "
                "--tag for a new run"
            )
        for path in files:
            try:
                return path, *read_checkpoint(path)
            except BrokenCheckpoint as error:
                self.log.info(f"passing over {error}")
        if files:
            raise UserError(f"none of the checkpoints in {self.run_dir} is whole: remove them to begin again")
        return None

    def _load_optional(self, arrays: Arrays, path: Path) -> list[str]:
        """Loss scale and averages, where both the run and the checkpoint have them; lines where only one does."""
        lines = []
        for prefix, what in ((SCALER_PREFIX, "loss scale"), (EMA_PREFIX, "average of the weights")):
            saved, wanted = select_prefix(arrays, prefix), self.state.get(prefix, {})
            if saved.keys() == wanted.keys():
                load_parameters(wanted, saved, path)
            elif wanted:
                lines.append(f"the checkpoint has no such {what}; it begins now")
                if prefix == EMA_PREFIX:
                    load_parameters(wanted, select_prefix(arrays, ""), path)
            else:
                lines.append(f"the checkpoint's {what} is dropped, as this configuration has none")
        return lines


def _differences(saved: str, config: Config) -> list[str]:
    """A line on the keys whose values differ from those that the run was saved with."""
    old, new = _flat(yaml.safe_load(saved)), _flat(yaml.safe_load(to_yaml(config)))
    changed = [
        f"{name} {old.get(name)!r} is now {value!r}"
        for name, value in new.items()
        if name not in PER_RUN_KEYS and old.get(name) != value
    ]
    return [f"settings that changed since: {shorten(changed, 10)}"] if changed else []


def _flat(tree: dict, prefix: str = "") -> dict[str, object]:
    result: dict[str, object] = {}
    for name, value in tree.items():
        result |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return result
