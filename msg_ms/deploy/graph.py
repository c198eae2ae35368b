"""An ONNX graph as it is written down: values that know their shape, and the nodes that make them."""

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
    """Nodes and constants in the order in which they were added; names begin with the scope they were added in."""

    opset: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)
    _scope: str = ""
    _used: Counter = field(default_factory=Counter)

    @contextlib.contextmanager
    def scope(self, name: str) -> Iterator[None]:
        outer, self._scope = self._scope, f"{self._scope}{name}/"
        yield
        self._scope = outer

    def constant(self, name: str, array: np.ndarray) -> str:
        """A constant under ``name``, which stands for the same array wherever it is asked for."""
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def integers(self, *values: int) -> str:
        """A list of integers, as shapes and axes are given."""
        return self.constant(f"ints/{'_'.join(map(str, values))}", np.array(values, np.int64))

    def number(self, value: float) -> str:
        return self.constant(f"number/{value!r}", np.array(value, np.float32))

    def add(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> list[str]:
        """A node of the operator ``op``; gives the names of what it computes."""
        base = f"{self._scope}{op}"
        self._used[base] += 1
        name = base if self._used[base] == 1 else f"{base}_{self._used[base]}"
        made = [f"{name}:{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), made, name, **attributes))
        return made

    def drop_unused(self, result: str) -> None:
        """Leave only what ``result`` is computed from."""
        needed, kept = {result}, []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                kept.append(node)
        self.nodes = kept[::-1]
        self.constants = {name: value for name, value in self.constants.items() if name in needed}


@dataclass(frozen=True)
class Value:
    """A float32 tensor of the graph. ``shape`` is that for one image: B images have B times as many along axis 0.

    It has what the functions of ``msg_ms/models/windows.py`` ask of a tensor, so that they lay out the graph's values
    as they do the model's.
    """

    graph: Graph
    name: str
    shape: tuple[int, ...]
    unshaped: str = ""  # what it is a reshaping of, if it is one

    def then(self, op: str, *others: str, shape: tuple[int, ...] | None = None, **attributes: Any) -> Value:
        """What ``op`` makes of this and ``others``; it has this value's shape unless another is given."""
        (name,) = self.graph.add(op, self.name, *others, **attributes)
        return Value(self.graph, name, shape or self.shape)

    def reshape(self, rows: int, *shape: int) -> Value:
        """Axis 0 must be left open (-1): it grows with the number of images."""
        assert rows == -1, rows
        count, rest = divmod(prod(self.shape), prod(shape))
        assert rest == 0, (self.shape, shape)
        if (count, *shape) == self.shape:
            return self
        source = self.unshaped or self.name
        (name,) = self.graph.add("Reshape", source, self.graph.integers(-1, *shape))
        return Value(self.graph, name, (count, *shape), source)

    def transpose(self, *axes: int) -> Value:
        return self.then("Transpose", shape=tuple(self.shape[axis] for axis in axes), perm=axes)

    def slice(self, axis: int, start: int, stop: int) -> Value:
        shape = (*self.shape[:axis], stop - start, *self.shape[axis + 1 :])
        bounds = [self.graph.integers(number) for number in (start, stop, axis)]
        return self.then("Slice", *bounds, shape=shape)

    def split(self, axis: int, parts: int) -> list[Value]:
        size = self.shape[axis] // parts
        sizes = self.graph.integers(*[size] * parts)
        names = self.graph.add("Split", self.name, sizes, outputs=parts, axis=axis)
        shape = (*self.shape[:axis], size, *self.shape[axis + 1 :])
        return [Value(self.graph, name, shape) for name in names]

    def join(self, other: Value, axis: int) -> Value:
        """This and ``other`` behind it, along ``axis``."""
        shape = (*self.shape[:axis], self.shape[axis] + other.shape[axis], *self.shape[axis + 1 :])
        return self.then("Concat", other.name, shape=shape, axis=axis)


def tensor_info(name: str, shape: list[int | str]) -> onnx.ValueInfoProto:
    """An input or output of the whole graph, float32; a word in ``shape`` stands for any number."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
