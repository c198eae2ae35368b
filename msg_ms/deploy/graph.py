"""Builder for ONNX graphs: nodes, and values with a known shape."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..version import __version__


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

    def value(self, name: str, array: np.ndarray) -> Value:
        """Add a constant and return it with its shape."""
        return Value(self, self.constant(name, array), array.shape)

    def to_model(
        self,
        name: str,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[tuple[Value, onnx.ValueInfoProto]],
        metadata: Mapping[str, str],
    ) -> onnx.ModelProto:
        """Return the graph as a model; nodes and constants that no output needs are left out.

        Args:
            name: The graph's name.
            inputs: Descriptions of the inputs.
            outputs: Values with their descriptions, of which they take the names.
            metadata: Entries of the file's metadata.
        """
        self._drop_unused({value.name for value, _ in outputs})
        names = {value.name: info.name for value, info in outputs}
        for node in self.nodes:
            node.input[:] = [names.get(own, own) for own in node.input]
            node.output[:] = [names.get(own, own) for own in node.output]
        described = [info for _, info in outputs]
        proto = helper.make_graph(self.nodes, name, list(inputs), described, list(self.constants.values()))
        versions = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(
            proto,
            opset_imports=versions,
            ir_version=helper.find_min_ir_version_for(versions),
            producer_name="msg_ms",
            producer_version=__version__,
        )
        helper.set_model_props(model, dict(metadata))
        return model

    def _drop_unused(self, results: set[str]) -> None:
        """Remove nodes and constants that do not contribute to ``results``."""
        needed, kept = set(results), []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                kept.append(node)
        self.nodes = kept[::-1]
        self.constants = {name: value for name, value in self.constants.items() if name in needed}


@dataclass(frozen=True)
class Value:
    """Tensor of the graph, float32 unless said otherwise.

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

    def __add__(self, other: Value | float) -> Value:
        return self._with("Add", other)

    def __sub__(self, other: Value | float) -> Value:
        return self._with("Sub", other)

    def __rsub__(self, other: float) -> Value:
        return Value(self.graph, self.graph.number(other), ()) - self

    def __mul__(self, other: Value | float) -> Value:
        return self._with("Mul", other)

    def __truediv__(self, other: Value | float) -> Value:
        return self._with("Div", other)

    def __ge__(self, other: Value | float) -> Value:
        return self._with("GreaterOrEqual", other)

    def __gt__(self, other: Value | float) -> Value:
        return self._with("Greater", other)

    def _with(self, op: str, other: Value | float) -> Value:
        if not isinstance(other, Value):
            return self.then(op, self.graph.number(other))
        return self.then(op, other.name, shape=np.broadcast_shapes(self.shape, other.shape))

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

    def crop(self, axis: int, size: int) -> Value:
        """Select the first ``size`` along ``axis``."""
        return self if size == self.shape[axis] else self.slice(axis, 0, size)

    def pad(self, axis: int, size: int) -> Value:
        """Append zeros along ``axis`` up to ``size``."""
        missing, before = size - self.shape[axis], [0] * len(self.shape)
        if not missing:
            return self
        after = [missing if i == axis else 0 for i in range(len(self.shape))]
        shape = (*self.shape[:axis], size, *self.shape[axis + 1 :])
        return self.then("Pad", self.graph.integers(*before, *after), shape=shape)

    def reduce(self, kind: str, axis: int) -> Value:
        """Reduce ``axis`` by "Mean" or "Max"; the axis was an attribute before opset 18."""
        shape = (*self.shape[:axis], *self.shape[axis + 1 :])
        if self.graph.opset < 18:
            return self.then(f"Reduce{kind}", shape=shape, axes=[axis], keepdims=0)
        return self.then(f"Reduce{kind}", self.graph.integers(axis), shape=shape, keepdims=0)

    def cast(self, kind: int) -> Value:
        """Convert to another type of ``onnx.TensorProto``."""
        return self.then("Cast", to=kind)

    def where(self, chosen: Value | float, other: Value | float) -> Value:
        """Return the entries of ``chosen`` where this bool value is true, else those of ``other``."""
        parts = [v if isinstance(v, Value) else Value(self.graph, self.graph.number(v), ()) for v in (chosen, other)]
        shape = np.broadcast_shapes(self.shape, *(part.shape for part in parts))
        return self.then("Where", *(part.name for part in parts), shape=shape)

    def rows(self, index: Value) -> Value:
        """Select rows of axis 0: (N, ...) and ``index``, int64 (...), to one row for each index."""
        return self.then("Gather", index.name, shape=(*index.shape, *self.shape[1:]), axis=0)

    def take(self, index: Value) -> Value:
        """Select entries (B, k, ...) of axis 1 by each image's own ``index``, int64 (B, k)."""
        index = index.reshape(-1, *index.shape[1:], 1)
        return self.then("GatherND", index.name, shape=(*index.shape[:-1], *self.shape[2:]), batch_dims=1)

    def top(self, count: int) -> tuple[Value, Value]:
        """Return the largest entries (B, count) of (B, N) by falling value, and their indices, int64."""
        names = self.graph.add("TopK", self.name, self.graph.integers(count), outputs=2, axis=1)
        largest, index = (Value(self.graph, name, (self.shape[0], count)) for name in names)
        return largest, index

    def split(self, axis: int, parts: int) -> list[Value]:
        """Split into equal parts along ``axis``."""
        size = self.shape[axis] // parts
        sizes = self.graph.integers(*[size] * parts)
        names = self.graph.add("Split", self.name, sizes, outputs=parts, axis=axis)
        shape = (*self.shape[:axis], size, *self.shape[axis + 1 :])
        return [Value(self.graph, name, shape) for name in names]

    def join(self, other: Value, axis: int) -> Value:
        """Concatenate this value and ``other`` along ``axis``."""
        return concat((self, other), axis)


def concat(values: Sequence[Value], axis: int) -> Value:
    """Concatenate values along ``axis``."""
    first = values[0]
    shape = (*first.shape[:axis], sum(value.shape[axis] for value in values), *first.shape[axis + 1 :])
    return first.then("Concat", *(value.name for value in values[1:]), shape=shape, axis=axis)


def tensor_info(name: str, shape: Sequence[int | str], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    """Describe an input or output of the graph; a name in ``shape`` is a dynamic size."""
    return helper.make_tensor_value_info(name, kind, shape)
