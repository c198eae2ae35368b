"""Attributes that the graph compiler takes the value of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class compile_time_property:
    """A property that a ``construct`` may ask for, compile_time_property by Python while the graph is compiled.

    The compiler reads the source of every Cell that it meets on the way to an attribute, called or not, and that of
    a property as well: for a block's parameters that is most of its work. Of this it sees the result alone.
    """

    def __init__(self, function: Callable[[Any], Any]):
        self.function, self.__doc__ = function, function.__doc__

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else self.function(instance)
