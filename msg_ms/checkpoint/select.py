"""Which of a checkpoint's dictionaries holds the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from ..errors import UserError, nearest, printable, shorten

USUAL_KEYS = ("model", "state_dict")
# What PyTorch's wrappers for several devices and for compilation put before every name.
_WRAPPERS = ("module.", "_orig_mod.")
_DEEPEST, _MOST_LISTED, _LONGEST_NAME = 3, 1000, 200
_MOST_WEIGHTS = 4000


def select_weights(content: Any, key: str | None, is_tensor: Callable[[Any], bool]) -> dict[str, Any]:
    """The dictionary of weights in a checkpoint's content, names without ``module.`` and ``_orig_mod.``.

    ``key`` is where it is: a dictionary's key, several joined by dots, or what all names of the weights begin with.
    Without one, it is looked for under ``model`` and ``state_dict``. Raises UserError that names the keys there are.
    """
    found = _usual(content) if key is None else _at(content, key)
    if found is None and key is not None:
        known = _available(content, is_tensor)
        there = (
            f"weights are under {shorten(known, 12)}{nearest(key, known)}" if known else "there are no weights in it"
        )
        raise UserError(f"--key {key}: {there}")
    if not isinstance(found, Mapping) or not found:
        raise UserError("holds no dictionary of weights")
    if len(found) > _MOST_WEIGHTS:
        raise UserError(f"holds {len(found):,} entries where weights are to be, more than any model here has")
    strangers = [
        printable(str(name), 100) for name, value in found.items() if not (isinstance(name, str) and is_tensor(value))
    ]
    if strangers:
        known = _available(content, is_tensor)
        there = f"; --key chooses one: {shorten(known, 12)}" if known else ""
        raise UserError(f"holds no plain dictionary of weights: {shorten(strangers)} is no tensor{there}")
    unspeakable = [name for name in found if len(name) > _LONGEST_NAME or not name.isprintable()]
    if unspeakable:
        raise UserError(f"holds no plain dictionary of weights: {printable(unspeakable[0], 100)} is no tensor's name")
    weights = dict(found)
    while prefix := next((p for p in _WRAPPERS if all(name.startswith(p) for name in weights)), None):
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def _usual(content: Any) -> Any:
    for _ in range(_DEEPEST):
        inner = next((content[k] for k in USUAL_KEYS if isinstance(content, Mapping) and k in content), None)
        if not isinstance(inner, Mapping):
            break
        content = inner
    return content


def _at(content: Any, key: str) -> Any:
    """What is at the dotted path ``key``, or the entries whose names begin with it, or None."""
    if not isinstance(content, Mapping):
        return None
    if key in content:
        return content[key]
    parts = key.split(".")
    for i in range(len(parts) - 1, 0, -1):
        inner = content.get(".".join(parts[:i]))
        if isinstance(inner, Mapping):
            found = _at(inner, ".".join(parts[i:]))
            if found is not None:
                return found
    below = {n.removeprefix(f"{key}."): v for n, v in content.items() if isinstance(n, str) and n.startswith(f"{key}.")}
    return below or None


def _available(content: Any, is_tensor: Callable[[Any], bool]) -> list[str]:
    """The dotted paths of dictionaries that hold tensors, none deeper than three."""
    paths, level = [], [("", content)]
    for _ in range(_DEEPEST):
        below = []
        for path, node in level:
            for name, value in islice(node.items() if isinstance(node, Mapping) else (), _MOST_LISTED):
                if isinstance(name, str) and isinstance(value, Mapping) and len(below) < _MOST_LISTED:
                    below.append((f"{path}.{name}" if path else name, value))
        paths += [printable(p, 100) for p, node in below if any(map(is_tensor, islice(node.values(), _MOST_LISTED)))]
        level = below
    return paths
