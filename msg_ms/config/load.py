"""Read a checked configuration from YAML files with ``BASE`` inheritance, ``--opts`` and flags; write it as YAML."""

from __future__ import annotations

import dataclasses
import math
import os
import reprlib
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError, nearest, printable
from ..files import user_path
from .checks import Check
from .relations import check_together
from .schema import Config
from .task_keys import check_task_keys
from .yaml_text import ParseError, Plain, dump, parse_mapping, parse_value


def load_config(cfg: str | Path | None, opts: Sequence[str] = (), **overrides: Any) -> Config:
    """Return the configuration from a YAML file, replaced by ``opts``, replaced by ``overrides``.

    Args:
        cfg: The YAML file; None for the defaults.
        opts: Keys and values in turn, as ``--opts`` accepts them.
        overrides: Values by full key, with ``__`` for the dots (``DATA__BATCH_SIZE=64``); None changes nothing.

    Raises:
        UserError: If a file can't be read, a key does not exist, or a value is not valid.
    """
    tree: dict[str, Any] = {}
    if cfg is not None:
        _merge_file(tree, user_path(str(cfg)), ())
    if len(opts) % 2:
        raise UserError(f"--opts expects pairs KEY VALUE; {opts[-1]!r} has no value")
    for name, text in zip(opts[::2], opts[1::2], strict=True):
        _set(tree, name, _parse_option(name, text), "--opts")
    for name, value in overrides.items():
        if value is not None:
            _set(tree, name.replace("__", "."), value, "the command line")
    config = _build(Config, tree, "")
    check_together(config)
    check_task_keys(dict(flat_items(config)), _DEFAULTS)
    return config


def to_yaml(config: Config) -> str:
    """Return every key with its value; ``load_config`` reads an equal configuration from it."""
    return dump(_to_tree(config))


def flat_items(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (key, value) for every leaf; keys are full (``MODEL.MSG.SHUF_SIZE``)."""
    for f in dataclasses.fields(config):
        name, value = prefix + f.name.upper(), getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            yield from flat_items(value, name + ".")
        else:
            yield name, value


_DEFAULTS = dict(flat_items(Config()))
KEYS = tuple(_DEFAULTS)
PATHS = {
    "DATA.DATA_PATH",
    "DATA.CLASS_INDEX",
    "DATA.VAL_LIST",
    "MODEL.RESUME",
    "MODEL.PRETRAINED",
    "OUTPUT",
    "COMPILE_CACHE",
}
MAX_INT = 2**31 - 1
SMALLEST, LARGEST = 2.0**-126, 2.0**128 - 2.0**104  # the range of single precision
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 100


@dataclass(frozen=True)
class _Sourced:
    """A value and its origin, for error messages."""

    value: Any
    source: str


def _merge_file(tree: dict[str, Any], path: Path, parents: tuple[Path, ...]) -> None:
    if (full := os.path.realpath(path)) in parents:
        raise UserError(f"{path}: BASE refers back to this file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"can't read the configuration {path}: {getattr(error, 'strerror', None) or error}") from None
    try:
        content = list(parse_mapping(text))
        for base in _bases(value for name, value, _ in content if name == "BASE"):
            _merge_file(tree, path.parent / user_path(base), (*parents, full))
    except ParseError as error:
        raise UserError(f"{path}: {error}") from None
    lines: dict[str, int] = {}
    for name, value, line in content:
        if name != "BASE":
            _set(tree, name, value, str(path))
        if name in lines:  # MODEL.NAME, and NAME in the section MODEL
            raise UserError(f"{path}: line {line}: {name} appears twice, first in line {lines[name]}")
        lines[name] = line


def _bases(values: Iterable[Any]) -> Iterator[str]:
    """Yield the files that ``BASE`` names: one or a list; empty names are none."""
    for value in values:
        for name in value if isinstance(value, list) else [value]:
            text = name.text if isinstance(name, Plain) else name
            if not isinstance(text, str) or "\0" in text:
                raise ParseError(f"BASE={name!r}: must be a file or a list of files")
            if text and not (isinstance(name, Plain) and name.value is None):
                yield text


def _sections() -> set[str]:
    return {known[:i] for known in KEYS for i, letter in enumerate(known) if letter == "."}


def _set(tree: dict[str, Any], name: str, value: Any, source: str) -> None:
    if name in _sections():
        if value != {}:
            raise UserError(f"{source}: {name} is a section; expected keys below it, found {_shown(value)}")
    elif name not in KEYS:
        raise UserError(f"{source}: {_unknown(name)}")
    else:
        tree[name] = _Sourced(value, source)


def _unknown(name: str) -> str:
    """Return the first part of a key that does not exist, and a similar one that does."""
    parts = name.split(".")
    for count in range(1, len(parts)):
        section = ".".join(parts[:count])
        if section in KEYS:
            return f"{section} is a key, not a section"
        if section not in _sections():
            return f"section {printable(section, 100)} does not exist{nearest(section, _sections())}"
    return f"key {printable(name, 100)} does not exist{nearest(name, KEYS)}"


def _parse_option(name: str, text: Any) -> Any:
    """Parse an option's text as YAML, or as plain text if the key holds text."""
    text = str(text)
    if isinstance(_DEFAULTS.get(name), str):
        return text
    try:
        return parse_value(text.replace("(", "[").replace(")", "]"))
    except ParseError:
        raise UserError(f"--opts: {name}={_shown(text)} can't be read as a value") from None


def _build(cls: type, tree: dict[str, Any], prefix: str) -> Any:
    """Build the dataclass ``cls`` from the values of ``tree`` under ``prefix``."""
    values = {}
    hints = typing.get_type_hints(cls)
    for f in dataclasses.fields(cls):
        name = prefix + f.name.upper()
        if dataclasses.is_dataclass(hints[f.name]):
            values[f.name] = _build(hints[f.name], tree, name + ".")
        elif name in tree:
            values[f.name] = _checked(name, tree[name], hints[f.name], f.metadata.get("check"))
    return cls(**values)


def _checked(name: str, sourced: _Sourced, hint: Any, check: Check | None) -> Any:
    where, raw = sourced.source, sourced.value
    try:
        value = _convert(raw, hint)
    except TypeError:
        raise UserError(f"{where}: {name}={_shown(raw)}: must be {_type_name(hint)}") from None
    if name in PATHS:
        value = _path(f"{where}: {name}", value)
    if check is not None and value is not None and not check.holds(value):
        raise UserError(f"{where}: {name}={_shown(raw)}: must be {check.expects}")
    return value


def _path(name: str, value: str) -> str:
    """Return a path with ``~`` expanded."""
    if "\0" in value:
        raise UserError(f"{name}={_shown(value)}: must not contain a null character")
    try:
        return os.fspath(user_path(value)) if value.startswith("~") else value
    except UserError as error:
        raise UserError(f"{name}={error}") from None


def _shown(value: Any) -> str:
    """Return a value for a message, shortened."""
    return printable(_REPR.repr(value), 200)


def _convert(value: Any, hint: Any) -> Any:
    if isinstance(hint, types.UnionType):
        inner = next(a for a in typing.get_args(hint) if a is not types.NoneType)
        none = value is None or value == "None" or (isinstance(value, Plain) and value.value is None)  # None: Python's
        return None if none else _convert(value, inner)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise TypeError
        return tuple(_convert(v, typing.get_args(hint)[0]) for v in value)
    if isinstance(value, Plain):
        value = value.text if hint is str and value.value is not None else value.value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < LARGEST else math.inf
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise TypeError
    if hint is float and not (value == 0 or SMALLEST <= abs(value) <= LARGEST):
        raise TypeError
    if hint is int and not -MAX_INT <= value <= MAX_INT:
        raise TypeError
    return value


def _type_name(hint: Any) -> str:
    if isinstance(hint, types.UnionType):
        return " or ".join(_type_name(a) for a in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return f"a list, each entry {_type_name(typing.get_args(hint)[0])}"
    names = {
        int: "a whole number, at most 2147483647",
        float: "a finite number in single precision",
        bool: "True or False",
        str: "text",
    }
    return names.get(hint, "None")


def _to_tree(config: Any) -> dict[str, Any]:
    tree = {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            value = _to_tree(value)
        tree[f.name.upper()] = _to_lists(value)
    return tree


def _to_lists(value: Any) -> Any:
    return [_to_lists(inner) for inner in value] if isinstance(value, tuple) else value
