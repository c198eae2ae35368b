"""A workaround for the time that a call of a Cell needs in Python before its graph runs."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn
from mindspore.nn.cell import _cell_graph_executor, _convert_python_data

# MindSpore 2.7 and 2.8 find the arguments of a graph in Python; there MindSpore's own call runs every time.
_FINDS_ARGUMENTS = hasattr(_cell_graph_executor._graph_executor, "get_args_for_run")


class FastRepeatedCall(nn.Cell):
    """A Cell whose graph runs at once if the inputs have the shapes and types of the last call.

    At every call MindSpore inspects the Cell and its inputs to find the compiled graph. For one image this is 3% of the
    time of an optimized ``msg_tiny`` in bfloat16 (MindSpore 2.10.0, two cores), as the kernels empty the caches between
    two calls. With this class it is done only when the inputs change. MindSpore itself skips these steps in the phases
    "prefill" and "increment" of language models, but without a look at the inputs.

    The executor is private to MindSpore; ``tests/models/test_repeated_call.py`` fails if a release changes it.

    Attributes:
        repeats_calls: Whether to do so, False at first. Nothing but inputs and ``phase`` may then change the graph.
    """

    def __init__(self):
        super().__init__()
        self.repeats_calls = False
        self._last_call = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the outputs of ``construct``."""
        if not (self.repeats_calls and _FINDS_ARGUMENTS) or kwargs or any(type(x) is not Tensor for x in args):
            return super().__call__(*args, **kwargs)
        call = self._describe(args)
        if call is None or call != self._last_call:
            self._last_call = None
            outputs = super().__call__(*args)
            self._last_call = self._describe(args)
            return outputs
        executor = _cell_graph_executor._graph_executor
        flags = list(self._has_mutable_args_list or [])
        inputs = executor.get_args_for_run(self, args, {}, flags, [], False, False)
        return _convert_python_data(executor(tuple(inputs), self.phase_cache[self.phase]))

    def _describe(self, args: tuple[Tensor, ...]) -> Hashable:
        """Return the properties that decide on the graph; None if there is none. A copy compiles its own graphs."""
        graph = self.phase_cache.get(self.phase)
        if graph not in self.compile_cache or ms.get_context("mode") != ms.GRAPH_MODE:
            return None
        return id(self), graph, tuple((x.shape, x.dtype) for x in args)
