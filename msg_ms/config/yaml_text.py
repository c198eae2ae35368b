"""YAML text to keys with values and back: numbers as in YAML 1.2, no key twice, text as it is written.

PyYAML follows YAML 1.1, where ``010`` is 8, ``1:30`` is 90, ``2026-11-26`` is a date and ``1e-3`` is text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from ..errors import UserError, printable

_MAX_VALUES = 10_000  # references to other values (*name) multiply them
_MAX_LEVELS = 32
_TAG = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"[-+]?(\d[\d_]*|0x[\da-fA-F_]+|0o[0-7_]+)")
_FLOAT = re.compile(
    r"[-+]?((\d[\d_]*\.[\d_]*|\.\d[\d_]*)([eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+|\.(inf|Inf|INF))|\.(nan|NaN|NAN)"
)
_PLAIN = re.compile(f"({_INTEGER.pattern}|{_FLOAT.pattern})$")


class ParseError(UserError):
    """The text is not a configuration; the message names no file."""


@dataclass(frozen=True)
class Plain:
    """A number, truth value or null in a file, with the text that was written: for a key that holds text it is text."""

    value: Any
    text: str

    def __repr__(self) -> str:
        return repr(self.value)


class _Loader(yaml.SafeLoader):
    """Composes nodes only, down to ``_MAX_LEVELS``: PyYAML needs seconds for a thousand open brackets."""

    def fetch_flow_collection_start(self, token: type) -> None:
        self._limit(self.flow_level)
        super().fetch_flow_collection_start(token)

    def add_indent(self, column: int) -> bool:
        self._limit(len(self.indents))
        return super().add_indent(column)

    def _limit(self, levels: int) -> None:
        if levels > _MAX_LEVELS:
            raise yaml.scanner.ScannerError(None, None, "too many levels", self.get_mark())


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or 1.2 would read as another value."""


_Dumper.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeDumper.yaml_implicit_resolvers.items()}
_Dumper.add_implicit_resolver(f"{_TAG}float", _PLAIN, list("-+.0123456789"))


def parse_mapping(text: str) -> list[tuple[str, Any, int]]:
    """Return (key, value, line) for each value of a YAML mapping; the keys of inner mappings are joined by dots.

    Values are text, ``Plain``, lists of them, and ``{}`` for an empty mapping.

    Args:
        text: YAML text.

    Raises:
        ParseError: If it is not YAML, not a mapping, or has a key twice.
    """
    node = _compose(text)
    if node is None or (isinstance(node, yaml.ScalarNode) and node.tag == f"{_TAG}null"):
        return []
    try:
        if isinstance(node, yaml.MappingNode):
            return list(_Values().items(node, ""))
        found = repr(_Values().convert(node))
    except RecursionError:
        raise ParseError("a value contains itself") from None
    raise ParseError("expected keys with values, found " + printable(found, 100))


def parse_value(text: str) -> Any:
    """Return the value of a YAML text: text, ``Plain``, a list, or a dictionary with values of any kind.

    Raises:
        ParseError: If it is not YAML.
    """
    node = _compose(text)
    try:
        return Plain(None, "") if node is None else _Values().convert(node)
    except RecursionError:
        raise ParseError("a value contains itself") from None


def dump(tree: dict[str, Any]) -> str:
    """Return YAML text that ``parse_mapping`` and YAML 1.1 read alike."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=10**6)


def _compose(text: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an escape beyond Unicode
        raise ParseError(f"not valid YAML: {error}") from None


class _Values:
    """Converts nodes; counts the values."""

    def __init__(self):
        self.count = 0

    def items(self, node: yaml.MappingNode, prefix: str) -> Iterator[tuple[str, Any, int]]:
        for name, (inner, line) in self.entries(node).items():
            if isinstance(inner, yaml.MappingNode) and inner.value:
                self._count()
                yield from self.items(inner, f"{prefix}{name}.")
            else:
                yield prefix + name, self.convert(inner), line

    def entries(self, node: yaml.MappingNode) -> dict[str, tuple[yaml.Node, int]]:
        """Return node and line of each key; those of ``<<`` come first, so that others replace them."""
        merged: dict[str, tuple[yaml.Node, int]] = {}
        own: dict[str, tuple[yaml.Node, int]] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise ParseError(f"line {line}: a key must be a name")
            if key.tag == f"{_TAG}merge":
                for inner in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    if not isinstance(inner, yaml.MappingNode):
                        raise ParseError(f"line {line}: << needs a section")
                    self._count()
                    merged = {**self.entries(inner), **merged}
                continue
            name = key.value
            if name in own:
                raise ParseError(f"line {line}: {printable(name, 100)} appears twice, first in line {own[name][1]}")
            own[name] = value, line
        return {**merged, **own}

    def convert(self, node: yaml.Node) -> Any:
        self._count()
        if isinstance(node, yaml.SequenceNode):
            return [self.convert(inner) for inner in node.value]
        if isinstance(node, yaml.MappingNode):
            return {name: self.convert(inner) for name, (inner, _) in self.entries(node).items()}
        if getattr(node, "style", None) is not None or not node.tag.startswith(_TAG):  # quoted
            return node.value
        return _scalar(node.tag.removeprefix(_TAG), node.value)

    def _count(self) -> None:
        self.count += 1
        if self.count > _MAX_VALUES:
            raise ParseError(f"more than {_MAX_VALUES:,} values")


def _scalar(kind: str, text: str) -> Any:
    """Return the value of an unquoted text; ``kind`` is its type in YAML 1.1."""
    if _INTEGER.fullmatch(text) and len(text) < 100:
        digits = text.replace("_", "")
        base = 16 if "0x" in digits else 8 if "0o" in digits else 10
        try:
            return Plain(int(digits, base), text)
        except ValueError:  # no digit after 0x
            return text
    if _FLOAT.fullmatch(text):
        return Plain(float(re.sub(r"_|\.(?=[iInN])", "", text)), text)
    if kind == "bool":
        return Plain(text.lower() in ("yes", "true", "on"), text)
    return Plain(None, text) if kind == "null" else text
