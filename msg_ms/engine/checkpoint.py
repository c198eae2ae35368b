"""Checkpoint files: written whole or not at all, read strictly.

A checkpoint is MindSpore's own ``.ckpt`` with its checksum: the model's parameters under their own names, the
optimizer's under ``optimizer.``, and the progress of the run as the entries that :class:`Progress` names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn

from ..errors import UserError, shorten
from .log import RunLog

OPTIMIZER = "optimizer."


@dataclass(frozen=True)
class Progress:
    """Where a run stands: epochs finished, updates made, accuracies in percent of the last and the best epoch.

    ``loss_sum`` is the sum of the losses of the updates since the last finished epoch. ``epoch_steps`` and
    ``batch_size`` tell whether a run that goes on sees the same batches.
    """

    epoch: int = 0
    step: int = 0
    epoch_steps: int = 0
    batch_size: int = 0
    accuracy: float = 0.0
    best_accuracy: float = 0.0
    loss_sum: float = 0.0

    def check(self, epoch_steps: int, batch_size: int) -> None:
        """Raise UserError where the data or the batch size differ from those of the run so far."""
        if (self.epoch_steps, self.batch_size) != (epoch_steps, batch_size):
            raise UserError(
                f"the checkpoint's run made {self.epoch_steps} updates an epoch in batches of {self.batch_size}; this "
                f"one would make {epoch_steps} in batches of {batch_size}: go on with the data and batch size it began "
                "with, or start afresh from its weights (best.ckpt and another --tag)"
            )


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; moved into place when the block ends well, else removed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise UserError(f"can't write {path}: {error.strerror or error}") from None
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"can't write {path}: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_checkpoint(path: Path, arrays: Mapping[str, np.ndarray], progress: Progress | None = None) -> None:
    """Write arrays, and the progress where there is one, as a ``.ckpt``; an older file of that name is replaced."""
    entries = [{"name": name, "data": Tensor(np.ascontiguousarray(value))} for name, value in arrays.items()]
    with written_whole(path) as temporary:
        extra = None
        if progress is not None:
            # Plain floats would be stored in single precision, and a resumed run's metrics differ in the last digits.
            extra = {
                name: Tensor(value, ms.float64) if isinstance(value, float) else value
                for name, value in dataclasses.asdict(progress).items()
            }
        ms.save_checkpoint(entries, str(temporary), append_dict=extra, crc_check=True)


def read_checkpoint(path: Path) -> tuple[dict[str, np.ndarray], Progress | None]:
    """Arrays and progress of a ``.ckpt``; raises UserError with one line for a file that is none or is broken."""
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}")
    if path.suffix != ".ckpt":
        raise UserError(f"{path} is no .ckpt; PyTorch checkpoints go through tools/convert_torch_ckpt.py first")
    try:
        loaded = ms.load_checkpoint(str(path), crc_check=True)
    except (ValueError, RuntimeError, OSError) as error:
        raise UserError(f"{path}: broken or no MindSpore checkpoint ({_first_line(error)})") from None
    fields = {f.name for f in dataclasses.fields(Progress)}
    arrays = {name: value.asnumpy() for name, value in loaded.items() if name not in fields}
    values = {name: loaded[name].asnumpy().item() for name in fields & loaded.keys()}
    return arrays, Progress(**values) if values else None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def parameter_arrays(parameters: Iterable[Parameter], prefix: str = "") -> dict[str, np.ndarray]:
    """Values by name, each name after ``prefix``."""
    return {prefix + parameter.name: parameter.asnumpy() for parameter in parameters}


def load_parameters(targets: Iterable[Parameter], arrays: Mapping[str, np.ndarray], prefix: str, source: Path) -> None:
    """Set every one of ``targets`` from the arrays whose names start with ``prefix``, names and shapes exact.

    With an empty prefix the optimizer's entries are left aside. Raises UserError with everything that differs.
    """
    parameters: dict[str, Parameter] = {prefix + p.name: p for p in targets}
    scalars = {name for name, parameter in parameters.items() if parameter.ndim == 0}
    # The file format turns scalars into arrays of one element.
    found = {
        name: value.reshape(()) if name in scalars and value.shape == (1,) else value
        for name, value in arrays.items()
        if name.startswith(prefix) and (prefix or not name.startswith(OPTIMIZER))
    }
    problems = [f"it lacks {name}" for name in parameters if name not in found]
    problems += [f"the model has no {name}" for name in found if name not in parameters]
    problems += [
        f"{name} is {found[name].shape}, the model's is {tuple(parameter.shape)}"
        for name, parameter in parameters.items()
        if name in found and found[name].shape != tuple(parameter.shape)
    ]
    if problems:
        raise UserError(f"{source} doesn't fit this configuration: {shorten(problems, separator='; ')}")
    for name, parameter in parameters.items():
        parameter.set_data(Tensor(found[name], parameter.dtype))


def load_weights(model: nn.Cell, path: Path) -> None:
    """Set the model's parameters from a checkpoint, with or without an optimizer's state in it."""
    load_parameters(model.get_parameters(), read_checkpoint(path)[0], "", path)


class Checkpoints:
    """The two checkpoints of a run: ``last.ckpt`` to go on from, ``best.ckpt`` with the best epoch's weights."""

    def __init__(self, run_dir: Path, model: nn.Cell, optimizer: nn.Cell | None = None):
        self.last, self.best = run_dir / "last.ckpt", run_dir / "best.ckpt"
        self.model, self.optimizer = model, optimizer

    def save(self, progress: Progress, improved: bool, last: bool) -> None:
        """Write the weights as the best where they ``improved``, and everything as the ``last`` where asked to."""
        weights = parameter_arrays(self.model.get_parameters())
        if improved:
            write_checkpoint(self.best, weights, progress)
        if last:
            write_checkpoint(self.last, weights | parameter_arrays(self.optimizer.state(), OPTIMIZER), progress)

    def restore(self, resume: str, auto_resume: bool, log: RunLog) -> Progress | None:
        """Go on from the run's own last checkpoint, or from ``resume``; None where the run is at its beginning.

        A checkpoint without the optimizer's state (a converted one, or ``best.ckpt``) gives its weights only.
        """
        path = Path(resume) if resume else None
        if auto_resume and self.last.is_file():
            if path is not None and path.resolve() != self.last.resolve():
                log.info(f"going on from {self.last} and not from {path}; TRAIN.AUTO_RESUME False changes that")
            path = self.last
        if path is None:
            return None
        arrays, progress = read_checkpoint(path)
        load_parameters(self.model.get_parameters(), arrays, "", path)
        if progress is None or not any(name.startswith(OPTIMIZER) for name in arrays):
            log.info(f"starting from the weights in {path}")
            return None
        load_parameters(self.optimizer.state(), arrays, OPTIMIZER, path)
        log.info(f"going on from {path}, after epoch {progress.epoch} and update {progress.step}")
        return progress

    def restore_weights(self, resume: str) -> Path:
        """Load the weights of ``resume``, or of the run's own best checkpoint; gives the file that was read."""
        path = Path(resume) if resume else self.best
        load_weights(self.model, path)
        return path
