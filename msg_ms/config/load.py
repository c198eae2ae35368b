"""Read a checked configuration from YAML files with ``BASE`` inheritance, ``--opts`` and flags; write it as YAML."""

from __future__ import annotations

import dataclasses
import os
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError, nearest, printable, shorten, shown
from ..files import as_path, user_path
from .relations import check_together
from .schema import Config
from .task_keys import check_task_keys
from .values import PATHS, checked
from .yaml_text import ParseError, Plain, dump, parse_mapping, parse_value


@dataclass(frozen=True)
class StoredConfig:
    """The configuration that a checkpoint stores: the text of ``to_yaml``, and the name of the file."""

    text: str
    source: str


def load_config(
    cfg: str | os.PathLike[str] | Mapping[str, Any] | Config | None,
    opts: Sequence[str] = (),
    stored: StoredConfig | None = None,
    **overrides: Any,
) -> Config:
    """Return the configuration from a YAML file, replaced by ``opts``, replaced by ``overrides``.

    Args:
        cfg: The YAML file, or its content as a dictionary; None for the defaults. A configuration is checked again. A
            dictionary's ``BASE`` is relative to the working directory.
        opts: Keys and values in turn, as ``--opts`` accepts them.
        stored: The configuration of a checkpoint, which has the values of all keys that ``cfg`` does not name. Paths
            and the device of its run do not count.
        overrides: Values by full key, with ``__`` for the dots (``DATA__BATCH_SIZE=64``); None changes nothing.

    Raises:
        UserError: If a file can't be read, a key does not exist, a value is not valid, or ``cfg`` describes another
            model than ``stored``.
    """
    tree: dict[str, Any] = {}
    if isinstance(cfg, Config):
        cfg = _to_tree(cfg)
    if isinstance(cfg, Mapping):
        tree = _from_mapping(cfg)
    elif isinstance(cfg, str | os.PathLike):
        _merge_file(tree, as_path("the configuration", cfg), ())
    elif cfg is not None:
        raise UserError(f"the configuration is {shown(cfg)}: must be a file, a dictionary or a Config")
    if stored is not None:
        tree = _over_stored(tree, stored)
    if len(opts) % 2:
        raise UserError(f"--opts expects pairs KEY VALUE; {opts[-1]!r} has no value")
    for name, text in zip(opts[::2], opts[1::2], strict=True):
        _set(tree, name, _parse_option(name, text, "--opts"), "--opts")
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
# Keys of a run that do not count where another process uses its checkpoint.
OF_RUN = PATHS | {
    *("AMP_OPT_LEVEL", "DEVICE_TARGET", "EVAL_MODE", "INFERENCE_PRECISION", "JIT_LEVEL", "LOCAL_RANK", "TAG"),
    "THROUGHPUT_MODE",
}
# Keys of the section MODEL that matter in training only.
OF_TRAINING = {"MODEL.DROP_RATE", "MODEL.DROP_PATH_RATE", "MODEL.LABEL_SMOOTHING"}
MASKS = "MODEL.RCNN.MASKS"
CALL = "the configuration"  # the source of a dictionary's values, for messages


@dataclass(frozen=True)
class _Sourced:
    """A value and its origin, for error messages."""

    value: Any
    source: str


def _merge_file(tree: dict[str, Any], path: Path, parents: tuple[str, ...]) -> None:
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


def _from_mapping(content: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    own: dict[str, Any] = {}
    try:
        for base in _bases([content["BASE"]] if "BASE" in content else []):
            _merge_file(tree, user_path(base), ())
    except ParseError as error:
        raise UserError(f"{CALL}: {error}") from None
    _merge_mapping(own, {key: value for key, value in content.items() if key != "BASE"}, "")
    return {**tree, **own}


def _merge_mapping(tree: dict[str, Any], content: Mapping[str, Any], prefix: str) -> None:
    for key, value in content.items():
        if not isinstance(key, str):
            raise UserError(f"{CALL}: {shown(key)} is not a key")
        if isinstance(value, Mapping) and value:
            _merge_mapping(tree, value, f"{prefix}{key}.")
        elif prefix + key in tree:
            raise UserError(f"{CALL}: {prefix}{key} appears twice")
        else:
            # A YAML reader of version 1.1 returns text for numbers such as 1e-3.
            _set(
                tree, prefix + key, _parse_option(prefix + key, value, CALL) if isinstance(value, str) else value, CALL
            )


def stored_items(stored: StoredConfig) -> Iterator[tuple[str, Any]]:
    """Yield (key, value) for every key of a checkpoint's configuration, also those of its run.

    Raises:
        UserError: If it is not valid.
    """
    return flat_items(_build(Config, _stored_tree(stored), ""))


def _stored_tree(stored: StoredConfig) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    try:
        for name, value, _ in parse_mapping(stored.text):
            _set(tree, name, value, stored.source)
    except ParseError as error:
        raise UserError(f"{stored.source}: its configuration can't be read: {error}") from None
    return tree


def _over_stored(tree: dict[str, Any], stored: StoredConfig) -> dict[str, Any]:
    """Return the values of a checkpoint's configuration, replaced by ``tree``, which must describe its model."""
    known = {name: value for name, value in _stored_tree(stored).items() if name not in OF_RUN}
    both = {**known, **tree}
    here, there = (dict(flat_items(_build(Config, values, ""))) for values in (both, known))
    of_model = {name for name in KEYS if name == "TASK" or name.startswith("MODEL.")} - OF_RUN - OF_TRAINING
    if there[MASKS]:  # a detector with masks is one without, too
        of_model.remove(MASKS)
    different = [
        f"{name} is {here[name]!r} there and {there[name]!r} in the checkpoint"
        for name in sorted(of_model & tree.keys())
        if here[name] != there[name]
    ]
    if different:
        source = next(tree[name].source for name in sorted(of_model & tree.keys()) if here[name] != there[name])
        raise UserError(
            f"{source} does not describe the model of {stored.source}: {shorten(different, 3, '; ')}; the checkpoint "
            "needs no --cfg"
        )
    return both


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
            raise UserError(f"{source}: {name} is a section; expected keys below it, found {shown(value)}")
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


def _parse_option(name: str, text: Any, source: str) -> Any:
    """Parse an option's text as YAML, or as plain text if the key holds text."""
    text = str(text)
    if isinstance(_DEFAULTS.get(name), str):
        return text
    try:
        return parse_value(text.replace("(", "[").replace(")", "]"))
    except ParseError:
        raise UserError(f"{source}: {name}={shown(text)} can't be read as a value") from None


def _build(cls: type, tree: dict[str, Any], prefix: str) -> Any:
    """Build the dataclass ``cls`` from the values of ``tree`` under ``prefix``."""
    values = {}
    hints = typing.get_type_hints(cls)
    for f in dataclasses.fields(cls):
        name = prefix + f.name.upper()
        if dataclasses.is_dataclass(hints[f.name]):
            values[f.name] = _build(hints[f.name], tree, name + ".")
        elif name in tree:
            values[f.name] = checked(name, tree[name].value, tree[name].source, hints[f.name], f.metadata.get("check"))
    return cls(**values)


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
