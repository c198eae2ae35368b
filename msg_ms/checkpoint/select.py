"""Find the dictionary of weights in the content of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from ..errors import UserError, nearest, printable, shorten

DEFAULT_KEYS = ("model", "state_dict")
# Parts of names that PyTorch's wrappers add: for compilation, FSDP, recomputation, and Lightning Fabric.
_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_fpw_module", "_checkpoint_wrapped_module", "_forward_module"}
_PARALLEL = "module."  # added to every name for several devices, and by averages of weights
_AVERAGE_COUNTERS = {"n_averaged", "steps"}  # beside the averages of PyTorch and of mmengine
# Limits for hostile files: depth and entries to search, length of a name, number of weights.
_MAX_DEPTH, _MAX_LISTED, _MAX_NAME_LENGTH, _MAX_WEIGHTS = 3, 1000, 200, 4000


def select_weights(content: Any, key: str | None, is_tensor: Callable[[Any], bool]) -> dict[str, Any]:
    """Return the dictionary of weights in the content of a checkpoint.

    The parts of names that PyTorch's wrappers add, such as ``module.`` and ``_orig_mod.``, are removed, and the counter
    beside averaged weights.

    Args:
        content: The object that the file stores.
        key: Location of the weights: a dictionary's key, several keys joined by dots, or the prefix of all names
            without its final dot. By default the weights are expected under ``model`` or ``state_dict``, or at the top.
        is_tensor: Returns whether a value in ``content`` is a tensor.

    Raises:
        UserError: If ``key`` does not exist, or the dictionary holds anything but tensors under proper names. The
            message lists the keys that exist.
    """
    selected = _find_default(content) if key is None else _find_key(content, key)
    if selected is None and key is not None:
        known = _tensor_keys(content, is_tensor)
        hint = f"weights are under {shorten(known, 12)}{nearest(key, known)}" if known else "the file has no weights"
        raise UserError(f"--key {key}: {hint}")
    if not isinstance(selected, Mapping) or not selected:
        raise UserError("does not contain a dictionary of weights")
    if len(selected) > _MAX_WEIGHTS:
        raise UserError(f"the dictionary of weights has {len(selected):,} entries; at most {_MAX_WEIGHTS:,} are read")
    non_tensors = [
        printable(str(name), 100)
        for name, value in selected.items()
        if not (isinstance(name, str) and is_tensor(value))
    ]
    if non_tensors:
        known = _tensor_keys(content, is_tensor)
        hint = f"; select one with --key: {shorten(known, 12)}" if known else ""
        raise UserError(f"does not contain a plain dictionary of weights: {shorten(non_tensors)} is not a tensor{hint}")
    unprintable = [name for name in selected if len(name) > _MAX_NAME_LENGTH or not name.isprintable()]
    if unprintable:
        name = printable(unprintable[0], 100)
        raise UserError(f"does not contain a plain dictionary of weights: {name} is not a parameter name")
    return unwrap(selected)


def unwrap(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Remove the parts that PyTorch's wrappers add from the names.

    Raises:
        UserError: If two names become the same.
    """
    result: dict[str, Any] = {}
    for name, value in weights.items():
        plain = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
        if plain in result:
            raise UserError(f"two weights are called {plain}, with and without a wrapper's name")
        result[plain] = value
    parallel = {name: value for name, value in result.items() if name not in _AVERAGE_COUNTERS}
    while parallel and all(name.startswith(_PARALLEL) for name in parallel):
        result = parallel = {name.removeprefix(_PARALLEL): value for name, value in parallel.items()}
    return result


def default_key(content: Any) -> str:
    """Return the location of the weights that are selected without a key; empty for the top."""
    return ".".join(_default_keys(content))


def _default_keys(content: Any) -> list[str]:
    keys: list[str] = []
    while len(keys) < _MAX_DEPTH and isinstance(content, Mapping):
        key = next((k for k in DEFAULT_KEYS if k in content), None)
        if key is None or not isinstance(content[key], Mapping):
            break
        content = content[key]
        keys.append(key)
    return keys


def _find_default(content: Any) -> Any:
    for key in _default_keys(content):
        content = content[key]
    return content


def _find_key(content: Any, key: str) -> Any:
    """Return the value at the dotted path ``key``, or the entries with that prefix, or None."""
    if not isinstance(content, Mapping):
        return None
    if key in content:
        return content[key]
    parts = key.split(".")
    for i in range(len(parts) - 1, 0, -1):
        inner = content.get(".".join(parts[:i]))
        if isinstance(inner, Mapping):
            value = _find_key(inner, ".".join(parts[i:]))
            if value is not None:
                return value
    prefix = f"{key}."
    plain = unwrap({name: value for name, value in content.items() if isinstance(name, str)})
    with_prefix = {name.removeprefix(prefix): value for name, value in plain.items() if name.startswith(prefix)}
    return with_prefix or None


def _tensor_keys(content: Any, is_tensor: Callable[[Any], bool]) -> list[str]:
    """Return the dotted paths of the dictionaries that hold tensors, down to the depth limit."""
    paths: list[str] = []
    level: list[tuple[str, Any]] = [("", content)]
    for _ in range(_MAX_DEPTH):
        below: list[tuple[str, Any]] = []
        for path, node in level:
            for name, value in islice(node.items() if isinstance(node, Mapping) else (), _MAX_LISTED):
                if isinstance(name, str) and isinstance(value, Mapping) and len(below) < _MAX_LISTED:
                    below.append((f"{path}.{name}" if path else name, value))
        paths += [printable(p, 100) for p, node in below if any(map(is_tensor, islice(node.values(), _MAX_LISTED)))]
        level = below
    return paths
