"""Read and write checkpoint files: atomic writes, strict reads.

A checkpoint is a MindSpore ``.ckpt`` with a checksum. It holds the model's parameters under their own names, the rest
of a run's state under prefixed names, and metadata (numbers and text) under ``run.``. Weights alone may also be stored
as MindSpore ``.safetensors``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor

from ..errors import UserError, shorten, shown
from ..files import as_path, atomic_write
from .dtypes import is_finite
from .safetensors import read_safetensors, write_safetensors
from .types import Arrays, BrokenCheckpoint, Metadata, check_arrays

OPTIMIZER_PREFIX, SCALER_PREFIX, EMA_PREFIX, METADATA_PREFIX = "optimizer.", "scaler.", "ema.", "run."
FORMATS = (".ckpt", ".safetensors")
# Prefixes that mindcv's trainer uses for the state of its optimizers and of its training step.
MINDCV_STATE = (
    "adam_m.",
    "adam_v.",
    "moment",
    "beta1_power",
    "beta2_power",
    "learning_rate",
    "global_step",
    "scale_sense",
    "updates",
)
# Every model here has norms. Their parameters are called gamma in MindSpore and weight in PyTorch.
_TORCH_NORM = re.compile(r"(^|\.)norm\d*\.weight$")
_MINDSPORE_NORM = re.compile(r"(^|\.)norm\d*\.gamma$")


def write_checkpoint(
    path: str | Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, int | float | str] = {}
) -> None:
    """Write arrays and metadata to a ``.ckpt`` or ``.safetensors`` file; replace an older file atomically.

    Args:
        path: The file to write; its suffix selects the format.
        arrays: Arrays by name.
        metadata: Numbers and text by name; ``.safetensors`` files store none.

    Raises:
        UserError: If the file cannot be written, or an argument is of another kind.
    """
    path = as_path("path", path)
    check_arrays("arrays", arrays)
    if not isinstance(metadata, Mapping) or not all(
        isinstance(name, str) and isinstance(value, int | float | str) for name, value in metadata.items()
    ):
        raise UserError(f"metadata={shown(metadata)}: must be a dictionary of numbers and text by name")
    if path.suffix == ".safetensors":
        with atomic_write(path) as temporary:
            write_safetensors(temporary, arrays, "ms")
        return
    # These tensors share the arrays' memory.
    entries = [{"name": name, "data": Tensor.from_numpy(np.ascontiguousarray(value))} for name, value in arrays.items()]
    # MindSpore stores Python floats in single precision, and the metrics of a resumed run would change.
    extra = {
        METADATA_PREFIX + name: Tensor(value, ms.float64) if isinstance(value, float) else value
        for name, value in metadata.items()
    }
    with atomic_write(path) as temporary:
        ms.save_checkpoint(entries, str(temporary), append_dict=extra, crc_check=True)


def read_checkpoint(path: str | Path) -> tuple[Arrays, Metadata]:
    """Read a ``.ckpt`` or ``.safetensors`` file.

    Args:
        path: The file to read.

    Returns:
        The arrays by name, and the metadata (empty for ``.safetensors``).

    Raises:
        UserError: If the file is missing, is not a checkpoint of this package, or has PyTorch parameter names.
        BrokenCheckpoint: If the file is damaged.
    """
    path = as_path("path", path)
    _check_is_checkpoint(path)
    if path.suffix == ".safetensors":
        arrays = read_safetensors(path).state
        if _has_torch_names(arrays):
            raise UserError(f"{path} has PyTorch parameter names; convert it with tools/convert_torch_ckpt.py")
        return arrays, {}
    loaded = _load(path, crc_check=True)
    names = [name for name in loaded if name.startswith(METADATA_PREFIX)]
    metadata = {name.removeprefix(METADATA_PREFIX): _to_python(loaded.pop(name)) for name in names}
    return {name: value.asnumpy() for name, value in loaded.items()}, metadata


def read_metadata(path: str | Path) -> Metadata:
    """Read the metadata of a checkpoint alone, without its arrays and without the check of its checksum.

    Args:
        path: The file to read.

    Raises:
        UserError: If the file is missing or is not a checkpoint of this package.
        BrokenCheckpoint: If the file is damaged.
    """
    path = as_path("path", path)
    _check_is_checkpoint(path)
    if path.suffix == ".safetensors":
        return {}
    others: list[str] = []

    def is_metadata(name: str) -> bool:
        if not name.startswith(METADATA_PREFIX):
            others.append(name)
        return name.startswith(METADATA_PREFIX)

    try:
        loaded = _load(path, choice_func=is_metadata)
    except BrokenCheckpoint:
        if others:  # MindSpore raises an error where nothing is chosen
            return {}
        raise
    return {name.removeprefix(METADATA_PREFIX): _to_python(value) for name, value in loaded.items()}


def _load(path: Path, **options: Any) -> dict[str, Any]:
    try:
        return ms.load_checkpoint(str(path), **options)
    except Exception as error:  # MindSpore's parser fails in many ways on a damaged file
        raise BrokenCheckpoint(f"{path}: damaged, or not a MindSpore checkpoint ({_first_line(error)})") from None


def _check_is_checkpoint(path: Path) -> None:
    """Raise UserError unless ``path`` is a file of our formats that can be read."""
    _check_is_file(path)
    if path.suffix not in FORMATS:
        raise UserError(
            f"{path} is not a {' or '.join(FORMATS)} file; convert PyTorch checkpoints with tools/convert_torch_ckpt.py"
        )


def _check_is_file(path: Path) -> None:
    """Raise UserError unless ``path`` is a file that can be read."""
    if re.match("[a-z][a-z0-9+.-]+:/", str(path)):
        address = str(path).replace(":/", "://", 1)
        raise UserError(f"{address} is an address, not a file: download the checkpoint first")
    try:  # a passing fault of permissions or network must not look like damage
        if path.is_dir():
            known = [
                file for file in (path / "best.ckpt", *sorted(path.glob("*.ckpt"), reverse=True)) if file.is_file()
            ]
            hint = f": name a checkpoint in it, such as {known[0]}" if known else ", and has no .ckpt files"
            raise UserError(f"{path} is a folder, not a checkpoint{hint}")
        with path.open("rb") as stream:
            stream.read(1)
    except FileNotFoundError:
        raise UserError(f"checkpoint {path} does not exist") from None
    except OSError as error:
        raise UserError(f"can't read checkpoint {path}: {error.strerror or error}") from None


def check_finite(arrays: Mapping[str, np.ndarray], source: Path) -> None:
    """Raise UserError if weights have infinite or NaN values.

    Args:
        arrays: Weights by name.
        source: The file that they come from, for the message.
    """
    broken = [name for name, value in arrays.items() if not is_finite(value)]
    if broken:
        raise UserError(
            f"{source} has infinite or NaN values in {shorten(broken, 3)}: the run that wrote it diverged; "
            "use an earlier checkpoint"
        )


def _has_torch_names(names: Iterable[str]) -> bool:
    names = list(names)
    return any(map(_TORCH_NORM.search, names)) and not any(map(_MINDSPORE_NORM.search, names))


def _to_python(value: Parameter | str) -> int | float | str:
    return value if isinstance(value, str) else value.asnumpy().item()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def parameters_by_name(parameters: Iterable[Parameter]) -> dict[str, Parameter]:
    """Return a dictionary from each parameter's name to the parameter."""
    return {parameter.name: parameter for parameter in parameters}


def to_numpy(parameters: Mapping[str, Parameter], prefix: str = "") -> Arrays:
    """Return the values of parameters as arrays.

    Args:
        parameters: Parameters by name.
        prefix: Text to add before each name.

    Returns:
        Arrays by prefixed name.
    """
    return {prefix + name: parameter.asnumpy() for name, parameter in parameters.items()}


def select_prefix(arrays: Mapping[str, np.ndarray], prefix: str) -> Arrays:
    """Select the arrays whose names start with a prefix.

    Args:
        arrays: The content of a checkpoint, of this package or of mindcv's trainer.
        prefix: Prefix to select. An empty one selects the model's parameters, without the other state of a run.

    Returns:
        The selected arrays, by name without the prefix.
    """
    if prefix:
        return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
    others = (OPTIMIZER_PREFIX, SCALER_PREFIX, EMA_PREFIX, *MINDCV_STATE)
    return {name: value for name, value in arrays.items() if not name.startswith(others)}
