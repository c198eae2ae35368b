"""Values of keys: their types, conditions and paths."""

from __future__ import annotations

import math
import os
import types
import typing
from typing import Any

from ..errors import UserError, shown
from ..files import user_path
from .checks import Check
from .yaml_text import Plain

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


def checked(name: str, raw: Any, where: str, hint: Any, check: Check | None) -> Any:
    """Return a value of a key in its type.

    Args:
        name: The key.
        raw: The value: text, ``Plain``, or one of Python's types.
        where: Its origin, for messages.
        hint: The type of the key.
        check: The condition on its values.

    Raises:
        UserError: If the value has another type or is not valid.
    """
    try:
        value = _convert(raw, hint)
    except TypeError:
        raise UserError(f"{where}: {name}={shown(raw)}: must be {_type_name(hint)}") from None
    if name in PATHS:
        value = _path(f"{where}: {name}", value)
    if check is not None and value is not None and not check.holds(value):
        raise UserError(f"{where}: {name}={shown(raw)}: must be {check.expects}")
    return value


def _path(name: str, value: str) -> str:
    """Return a path with ``~`` expanded."""
    if "\0" in value:
        raise UserError(f"{name}={shown(value)}: must not contain a null character")
    try:
        return os.fspath(user_path(value)) if value.startswith("~") else value
    except UserError as error:
        raise UserError(f"{name}={error}") from None


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
