"""Read a checked configuration from YAML files with ``BASE`` inheritance, ``--opts`` and flags; write it as YAML."""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..errors import UserError, nearest
from .schema import Check, Config


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
        _merge_file(tree, Path(cfg), ())
    if len(opts) % 2:
        raise UserError(f"--opts expects pairs KEY VALUE; {opts[-1]!r} has no value")
    for name, text in zip(opts[::2], opts[1::2], strict=True):
        _set(tree, name, _parse_option(name, text), "--opts")
    for name, value in overrides.items():
        if value is not None:
            _set(tree, name.replace("__", "."), value, "the command line")
    return _build(Config, tree, "")


def to_yaml(config: Config) -> str:
    """Return every key with its value; ``load_config`` reads an equal configuration from it."""
    return yaml.safe_dump(_to_tree(config), sort_keys=False, default_flow_style=None)


def flat_items(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (key, value) for every leaf; keys are full (``MODEL.MSG.SHUF_SIZE``)."""
    for f in dataclasses.fields(config):
        name, value = prefix + f.name.upper(), getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            yield from flat_items(value, name + ".")
        else:
            yield name, value


KEYS = tuple(name for name, _ in flat_items(Config()))


class _Loader(yaml.SafeLoader):
    """YAML 1.2 numbers: ``1e-6`` is a float, but a string in YAML 1.1."""


_Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


@dataclass(frozen=True)
class _Sourced:
    """A value and its origin, for error messages."""

    value: Any
    source: str


def _merge_file(tree: dict[str, Any], path: Path, parents: tuple[Path, ...]) -> None:
    if path.resolve() in parents:
        raise UserError(f"{path}: BASE refers back to this file")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"can't read the configuration {path}: {getattr(error, 'strerror', None) or error}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected keys with values, found {content!r}")
    bases = content.pop("BASE", [])
    for base in [bases] if isinstance(bases, str) else bases or []:
        if base:
            _merge_file(tree, path.parent / base, (*parents, path.resolve()))
    _merge_mapping(tree, content, "", str(path))


def _merge_mapping(tree: dict[str, Any], content: dict, prefix: str, source: str) -> None:
    for name, value in content.items():
        full = f"{prefix}{name}"
        if isinstance(value, dict) and full not in KEYS:
            if not any(known.startswith(full + ".") for known in KEYS):
                raise UserError(f"{source}: section {full} does not exist{nearest(full, _sections())}")
            _merge_mapping(tree, value, full + ".", source)
        else:
            _set(tree, full, value, source)


def _sections() -> set[str]:
    return {known[:i] for known in KEYS for i, letter in enumerate(known) if letter == "."}


def _set(tree: dict[str, Any], name: str, value: Any, source: str) -> None:
    if name not in KEYS:
        if name in _sections():
            raise UserError(f"{source}: {name} is a section; expected keys below it, found {value!r}")
        raise UserError(f"{source}: key {name} does not exist{nearest(name, KEYS)}")
    tree[name] = _Sourced(value, source)


def _parse_option(name: str, text: Any) -> Any:
    """Parse an option's text as YAML, or as plain text if the key holds text."""
    text = str(text)
    if dict(flat_items(Config())).get(name, None).__class__ is str:
        return text
    if text == "None":
        return None
    try:
        return yaml.load(text.replace("(", "[").replace(")", "]"), Loader=_Loader)
    except yaml.YAMLError:
        raise UserError(f"--opts: {name}={text!r} can't be read as a value") from None


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
        raise UserError(f"{where}: {name}={raw!r}: must be {_type_name(hint)}") from None
    if check is not None and value is not None and not check.holds(value):
        raise UserError(f"{where}: {name}={raw!r}: must be {check.expects}")
    return value


def _convert(value: Any, hint: Any) -> Any:
    if isinstance(hint, types.UnionType):
        inner = next(a for a in typing.get_args(hint) if a is not types.NoneType)
        return None if value is None else _convert(value, inner)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise TypeError
        return tuple(_convert(v, typing.get_args(hint)[0]) for v in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise TypeError
    if hint is float and not math.isfinite(value):
        raise TypeError
    return value


def _type_name(hint: Any) -> str:
    if isinstance(hint, types.UnionType):
        return " or ".join(_type_name(a) for a in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return f"a list, each entry {_type_name(typing.get_args(hint)[0])}"
    names = {int: "a whole number", float: "a finite number", bool: "True or False", str: "text"}
    return names.get(hint, "None")


def _to_tree(config: Any) -> dict[str, Any]:
    tree = {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            value = _to_tree(value)
        tree[f.name.upper()] = list(value) if isinstance(value, tuple) else value
    return tree
