"""Methods of a Cell that run as compiled graphs when Python calls them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import MethodType
from typing import Any

import mindspore as ms
from mindspore import nn

from .compile_phase import FastCompilePhase


class GraphMethods(nn.Cell):
    """A Cell with methods decorated by ``graph_method``."""

    def __init__(self):
        super().__init__()
        self._graph_methods: dict[str, MethodGraph] = {}

    def forget_graphs(self) -> None:
        """Discard the compiled graphs, which do not follow changes of sub-cells."""
        self.compile_cache.clear()
        self._graph_methods = {}


class MethodGraph(FastCompilePhase):
    """A Cell whose graph is a method of another Cell.

    Args:
        cell: The other Cell.
        method: The function of its class.
    """

    def __init__(self, cell: nn.Cell, method: Callable[..., Any]):
        super().__init__(auto_prefix=False)  # a prefix would rename the parameters
        self.cell, self.method = cell, MethodType(method, cell)

    def construct(self, *args: Any) -> Any:
        """Return the method's result."""
        return self.method(*args)

    def run(self, *args: Any) -> Any:
        """Return the method's result, from the graph of the Cell's present mode."""
        phase = "train" if self.cell.training else "predict"
        if self.phase != phase:  # MindSpore names its graphs by the phase
            self.add_flags(training=self.cell.training)  # not its sub-cells, whose modes may differ
            self.phase: str = phase
        return self(*args)


def graph_method(prepare: Callable[..., tuple]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a method of ``GraphMethods`` so that a call from Python compiles it in graph mode, as ``construct`` is.

    MindSpore runs other methods operator by operator and compiles a graph for every Cell in them: for ``msg_tiny`` the
    first call is three times as long, and later ones are eight times as long. Inside another Cell's graph the method is
    a part of that graph, as MindSpore's parser unwraps decorators. ``mindspore.jit`` does not see new sub-cells, and
    leaves its method as the one that is compiled for the Cell inside others.

    Args:
        prepare: Is called before with the Cell and the arguments; returns all of them by position, or raises UserError.
    """

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            arguments = prepare(self, *args, **kwargs)
            if ms.get_context("mode") == ms.PYNATIVE_MODE:
                return method(self, *arguments)
            if method.__name__ not in self._graph_methods:
                self._graph_methods[method.__name__] = MethodGraph(self, method)
            return self._graph_methods[method.__name__].run(*arguments)

        return call

    return decorate
