"""Load checkpoints into models: exactly, for inference at another size, or for fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from mindspore import Parameter, Tensor, nn

from ..errors import UserError, shorten, shown
from .files import check_finite, parameters_by_name, read_checkpoint, select_prefix
from .resize import HEAD, adapt_weights, is_adaptable
from .types import Metadata


def load_parameters(targets: Mapping[str, Parameter], arrays: Mapping[str, np.ndarray], source: Path) -> None:
    """Set every parameter from the array of the same name; names and shapes must match exactly.

    Args:
        targets: Parameters by name.
        arrays: Values by name.
        source: The file that the arrays come from, for error messages.

    Raises:
        UserError: If names or shapes differ; the message lists all differences.
    """
    # The file format turns scalars into arrays of one element.
    arrays = {
        name: value.reshape(()) if name in targets and targets[name].ndim == 0 and value.shape == (1,) else value
        for name, value in arrays.items()
    }
    names = [f"{name} is missing" for name in targets if name not in arrays]
    names += [f"the model has no {name}" for name in arrays if name not in targets]
    wrong_shape = [n for n, p in targets.items() if n in arrays and arrays[n].shape != tuple(p.shape)]
    shapes = [f"{n} is {arrays[n].shape}, the model's is {tuple(targets[n].shape)}" for n in wrong_shape]
    if names or shapes:
        text = f"{source} does not fit this configuration: {shorten(names + shapes, separator='; ')}"
        if not names and all(map(is_adaptable, wrong_shape)):
            others = "classes, channels, windows or image sizes"
            text += f"; --pretrained and another --tag start a run from weights of other {others}"
        raise UserError(text)
    for name, parameter in targets.items():
        parameter.set_data(Tensor(arrays[name], parameter.dtype))


def _parameters_of(model: nn.Cell) -> dict[str, Parameter]:
    if not isinstance(model, nn.Cell):
        raise UserError(f"model={shown(model)}: must be a mindspore.nn.Cell")
    return parameters_by_name(model.get_parameters())


def load_weights(model: nn.Cell, path: Path) -> None:
    """Set the model's parameters from a checkpoint; names and shapes must match exactly.

    Args:
        model: The model to set.
        path: A checkpoint of this package, which may also hold the rest of a training run.

    Raises:
        UserError: If the file is unreadable, or names or shapes differ.
    """
    load_parameters(_parameters_of(model), select_prefix(read_checkpoint(path)[0], ""), path)


def load_pretrained(model: nn.Cell, path: Path, prefix: str = "") -> list[str]:
    """Set the model's parameters from a checkpoint for fine-tuning.

    Weights for other windows and image sizes are resampled, the first layer is adapted to other channels, and a head
    for other classes keeps its initial values (see ``msg_ms.checkpoint.adapt_weights``). A backbone
    (``msg_ms.MSGFeatures``, or a detector's) accepts the checkpoint of a classifier; it ignores the head, the last norm
    and the stages that the backbone lacks.

    Args:
        model: The model, or the part of a larger model that the checkpoint is for.
        path: A checkpoint of this package.
        prefix: Prefix of ``model``'s parameter names in a larger model, such as ``"backbone."``. If names in the file
            have the prefix too, only those are loaded; otherwise all are.

    Returns:
        A line for each change.

    Raises:
        UserError: If the file is unreadable, or other names or shapes differ.
    """
    if not isinstance(prefix, str):
        raise UserError(f"prefix={shown(prefix)}: must be text, such as 'backbone.'")
    targets = {name.removeprefix(prefix): p for name, p in _parameters_of(model).items()}
    arrays = select_prefix(read_checkpoint(path)[0], "")
    if prefix:
        arrays = select_prefix(arrays, prefix) or arrays
    optional: tuple[str, ...] = (f"{HEAD}.",)
    if hasattr(model, "ignores"):  # a ``FeatureBackbone``; models are above this package
        arrays = {name: value for name, value in arrays.items() if name in targets or not model.ignores(name)}
        optional += model.output_norms
    check_finite(arrays, path)
    adapted, lines = adapt_weights(arrays, {name: tuple(p.shape) for name, p in targets.items()})
    # These parameters keep their initial values; any other must be in the file.
    initial = {name for name in targets if name not in adapted and (name in arrays or name.startswith(optional))}
    load_parameters({name: p for name, p in targets.items() if name not in initial}, adapted, path)
    return lines


def load_for_inference(model: nn.Cell, path: Path) -> tuple[list[str], Metadata]:
    """Set the model's parameters from a checkpoint for the same classes; windows and image size may differ.

    Args:
        model: The model to set.
        path: A checkpoint of this package.

    Returns:
        A line for each change, and the checkpoint's metadata.

    Raises:
        UserError: If the file is unreadable, or other names or shapes differ.
    """
    targets = _parameters_of(model)
    arrays, metadata = read_checkpoint(path)
    arrays = select_prefix(arrays, "")
    check_finite(arrays, path)
    notes: list[str] = []
    if hasattr(model, "own_weights"):  # a detector; models are above this package
        arrays, notes = model.own_weights(arrays, path)
    shapes = {name: tuple(parameter.shape) for name, parameter in targets.items()}
    arrays, lines = adapt_weights(arrays, shapes, new_head=False)
    load_parameters(targets, arrays, path)
    lines = [f"{line}, without training; fine-tune with train.py --pretrained" for line in lines]
    return [f"{path}: {line}" for line in (*notes, *lines)], metadata
