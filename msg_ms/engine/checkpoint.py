"""Checkpoint files: written whole or not at all, read strictly.

A checkpoint is MindSpore's own ``.ckpt`` with its checksum: the model's parameters under their own names, what else a
run needs to go on under names with a prefix, and notes (numbers and text) under ``run.``. Weights alone may also be in
MindSpore's ``.safetensors``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn

from ..convert import adapt_weights, converts, read_safetensors, write_safetensors
from ..convert.adapt import is_adaptable
from ..errors import UserError, shorten
from ..files import written_whole
from ..models.features import MSGFeatures
from ..models.msg_transformer import MSGTransformer

OPTIMIZER, SCALER, AVERAGE, NOTES = "optimizer.", "scaler.", "ema.", "run."
FORMATS = (".ckpt", ".safetensors")
CLASSES = "classes"  # the note that holds the class folders' names as a JSON list, in the order of their labels
# What mindcv's trainer saves beside the weights: the optimizers' state and that of its training step.
MINDCV_STATE = (
    "adam_m.", "adam_v.", "moment", "beta1_power", "beta2_power", "learning_rate", "global_step", "scale_sense",
    "updates",
)  # fmt: skip
Arrays = dict[str, np.ndarray]
Notes = dict[str, int | float | str]


class BrokenCheckpoint(UserError):
    """The file is damaged, or no checkpoint at all."""


def write_checkpoint(path: Path, arrays: Mapping[str, np.ndarray], notes: Mapping[str, int | float | str] = {}) -> None:
    """Write arrays and notes as the ``.ckpt`` or ``.safetensors`` that ``path`` names; an older file is replaced.

    ``.safetensors`` takes no notes.
    """
    if path.suffix == ".safetensors":
        with written_whole(path) as temporary:
            write_safetensors(temporary, arrays, "ms")
        return
    # Tensors over the arrays' own memory.
    entries = [{"name": name, "data": Tensor.from_numpy(np.ascontiguousarray(value))} for name, value in arrays.items()]
    # Plain floats would be stored in single precision, and a resumed run's metrics differ in the last digits.
    extra = {
        NOTES + name: Tensor(value, ms.float64) if isinstance(value, float) else value for name, value in notes.items()
    }
    with written_whole(path) as temporary:
        ms.save_checkpoint(entries, str(temporary), append_dict=extra, crc_check=True)


def read_checkpoint(path: Path) -> tuple[Arrays, Notes]:
    """Arrays and notes of a ``.ckpt`` or ``.safetensors``.

    Raises UserError with one line for a file that is none or is broken.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}")
    if path.suffix not in FORMATS:
        raise UserError(
            f"{path} is no {' or '.join(FORMATS)}; PyTorch checkpoints go through tools/convert_torch_ckpt.py first"
        )
    if path.suffix == ".safetensors":
        arrays = read_safetensors(path).state
        if converts(arrays, "torch") and not converts(arrays, "ours"):
            raise UserError(f"{path} has PyTorch's names; tools/convert_torch_ckpt.py gives it this package's")
        return arrays, {}
    try:
        loaded = ms.load_checkpoint(str(path), crc_check=True)
    except Exception as error:  # MindSpore's parser fails in many ways on a damaged file
        raise BrokenCheckpoint(f"{path}: broken or no MindSpore checkpoint ({_first_line(error)})") from None
    notes = {name.removeprefix(NOTES): _plain(loaded.pop(name)) for name in list(loaded) if name.startswith(NOTES)}
    return {name: value.asnumpy() for name, value in loaded.items()}, notes


def _plain(value: Parameter | str) -> int | float | str:
    return value if isinstance(value, str) else value.asnumpy().item()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def named(parameters: Iterable[Parameter]) -> dict[str, Parameter]:
    return {parameter.name: parameter for parameter in parameters}


def arrays_of(parameters: Mapping[str, Parameter], prefix: str = "") -> Arrays:
    """Values by name, each name after ``prefix``."""
    return {prefix + name: parameter.asnumpy() for name, parameter in parameters.items()}


def part(arrays: Mapping[str, np.ndarray], prefix: str) -> Arrays:
    """The arrays whose names start with ``prefix``, under the rest of their names; with "" the model's parameters.

    Checkpoints of mindcv's trainer are taken apart alike.
    """
    if prefix:
        return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
    others = (OPTIMIZER, SCALER, AVERAGE, *MINDCV_STATE)
    return {name: value for name, value in arrays.items() if not name.startswith(others)}


def load_parameters(targets: Mapping[str, Parameter], arrays: Mapping[str, np.ndarray], source: Path) -> None:
    """Set every one of ``targets`` from the array of its name, names and shapes exact.

    Raises UserError with everything that differs.
    """
    # The file format turns scalars into arrays of one element.
    found = {
        name: value.reshape(()) if name in targets and targets[name].ndim == 0 and value.shape == (1,) else value
        for name, value in arrays.items()
    }
    other = [f"it lacks {name}" for name in targets if name not in found]
    other += [f"the model has no {name}" for name in found if name not in targets]
    misshapen = [n for n, p in targets.items() if n in found and found[n].shape != tuple(p.shape)]
    problems = other + [f"{n} is {found[n].shape}, the model's is {tuple(targets[n].shape)}" for n in misshapen]
    if problems:
        text = f"{source} doesn't fit this configuration: {shorten(problems, separator='; ')}"
        if not other and all(map(is_adaptable, misshapen)):
            text += "; --pretrained and another --tag begin a run from weights of other classes, windows or image sizes"
        raise UserError(text)
    for name, parameter in targets.items():
        parameter.set_data(Tensor(found[name], parameter.dtype))


def load_weights(model: nn.Cell, path: Path) -> None:
    """Set the model's parameters from a checkpoint, with or without the rest of a run in it."""
    load_parameters(named(model.get_parameters()), part(read_checkpoint(path)[0], ""), path)


def load_pretrained(model: MSGTransformer, path: Path) -> list[str]:
    """As :func:`load_weights`, for fine-tuning: other classes, windows or image sizes are adapted to, see
    :func:`msg_ms.convert.adapt_weights`. A backbone (:class:`msg_ms.MSGFeatures`) takes a classifier's weights without
    head, last norm and the stages that it lacks. Gives a line on each thing that was changed.
    """
    targets = named(model.get_parameters())
    arrays = part(read_checkpoint(path)[0], "")
    if isinstance(model, MSGFeatures):
        arrays = {name: value for name, value in arrays.items() if name in targets or not model.leaves_out(name)}
    arrays, lines = adapt_weights(arrays, {name: tuple(p.shape) for name, p in targets.items()})
    anew = ("head.", *(f"norm{i}." for i in range(len(model.layers))))
    kept = {name: p for name, p in targets.items() if name in arrays or not name.startswith(anew)}
    load_parameters(kept, arrays, path)
    return lines


def load_for_inference(model: nn.Cell, path: Path) -> tuple[list[str], Notes]:
    """As :func:`load_weights`, at other windows or image sizes too, but for the checkpoint's own classes.

    Gives a line on each thing that was changed, and the checkpoint's notes.
    """
    targets, (arrays, notes) = named(model.get_parameters()), read_checkpoint(path)
    shapes = {name: tuple(parameter.shape) for name, parameter in targets.items()}
    arrays, lines = adapt_weights(part(arrays, ""), shapes, new_head=False)
    load_parameters(targets, arrays, path)
    return [f"{path}: {line}, without training; train.py --pretrained fine-tunes them" for line in lines], notes
