"""Builder for ONNX graphs: nodes, and values with a known shape."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


@dataclass
class Graph:
    """Nodes and constants in the order of their creation; node names start with the current scope."""

    opset: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)
    _scope: str = ""
    _used: Counter = field(default_factory=Counter)

    @contextlib.contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefix the names of new nodes with ``name``."""
        outer, self._scope = self._scope, f"{self._scope}{name}/"
        yield
        self._scope = outer

    def constant(self, name: str, array: np.ndarray) -> str:
        """Add a constant, unless one with this name exists, and return the name."""
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def integers(self, *values: int) -> str:
        """Add an int64 vector, for shapes and axes."""
        return self.constant(f"ints/{'_'.join(map(str, values))}", np.array(values, np.int64))

    def number(self, value: float) -> str:
        """Add a float32 scalar."""
        return self.constant(f"number/{value!r}", np.array(value, np.float32))

    def add(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> list[str]:
        """Add a node of the operator ``op`` and return the names of its outputs."""
        base = f"{self._scope}{op}"
        self._used[base] += 1
        name = base if self._used[base] == 1 else f"{base}_{self._used[base]}"
        results = [f"{name}:{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), results, name, **attributes))
        return results

    def drop_unused(self, result: str) -> None:
        """Remove nodes and constants that do not contribute to ``result``."""
        needed, kept = {result}, []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                kept.append(node)
        self.nodes = kept[::-1]
        self.constants = {name: value for name, value in self.constants.items() if name in needed}


@dataclass(frozen=True)
class Value:
    """Float32 tensor of the graph.

    It has the methods that ``msg_ms/models/windows.py`` calls on tensors, so its functions work on both.

    Attributes:
        graph: The graph to which operations add nodes.
        name: Name in the graph.
        shape: Shape for one image; with B images axis 0 is B times as long.
        unshaped: Name of the tensor before a reshape, else empty.
    """

    graph: Graph
    name: str
    shape: tuple[int, ...]
    unshaped: str = ""

    def then(self, op: str, *others: str, shape: tuple[int, ...] | None = None, **attributes: Any) -> Value:
        """Apply ``op`` to this value and ``others``; the result has the same shape unless ``shape`` is given."""
        (name,) = self.graph.add(op, self.name, *others, **attributes)
        return Value(self.graph, name, shape or self.shape)

    def reshape(self, rows: int, *shape: int) -> Value:
        """Reshape; ``rows`` must be -1, as axis 0 depends on the number of images."""
        assert rows == -1, rows
        count, rest = divmod(prod(self.shape), prod(shape))
        assert rest == 0, (self.shape, shape)
        if (count, *shape) == self.shape:
            return self
        source = self.unshaped or self.name
        (name,) = self.graph.add("Reshape", source, self.graph.integers(-1, *shape))
        return Value(self.graph, name, (count, *shape), source)

    def transpose(self, *axes: int) -> Value:
        """Permute the axes."""
        return self.then("Transpose", shape=tuple(self.shape[axis] for axis in axes), perm=axes)

    def slice(self, axis: int, start: int, stop: int) -> Value:
        """Select ``start`` to ``stop`` - 1 along ``axis``."""
        shape = (*self.shape[:axis], stop - start, *self.shape[axis + 1 :])
        bounds = [self.graph.integers(number) for number in (start, stop, axis)]
        return self.then("Slice", *bounds, shape=shape)

    def split(self, axis: int, parts: int) -> list[Value]:
        """Split into equal parts along ``axis``."""
        size = self.shape[axis] // parts
        sizes = self.graph.integers(*[size] * parts)
        names = self.graph.add("Split", self.name, sizes, outputs=parts, axis=axis)
        shape = (*self.shape[:axis], size, *self.shape[axis + 1 :])
        return [Value(self.graph, name, shape) for name in names]

    def join(self, other: Value, axis: int) -> Value:
        """Concatenate this value and ``other`` along ``axis``."""
        shape = (*self.shape[:axis], self.shape[axis] + other.shape[axis], *self.shape[axis + 1 :])
        return self.then("Concat", other.name, shape=shape, axis=axis)


def tensor_info(name: str, shape: list[int | str]) -> onnx.ValueInfoProto:
    """Describe a float32 input or output of the graph; a name in ``shape`` is a dynamic size."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
