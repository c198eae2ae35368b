"""Attributes that Python evaluates while MindSpore compiles a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class compile_time_property:
    """A read-only property for use in ``construct``, evaluated by Python at compile time.

    MindSpore compiles the source of an ordinary property, and that of every Cell on the way to its attributes. For a
    block's parameters this is most of the compile time. Here only the value enters the graph.
    """

    def __init__(self, function: Callable[[Any], Any]):
        self.function, self.__doc__ = function, function.__doc__

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else self.function(instance)
