"""Count the primitives of a block's training graph, next to mindcv's Swin Transformer: python benchmarks/primitives.py.

MindSpore's compiler parses, differentiates and optimizes the graph of loss and gradients for any device. This script
reads the result, before a device selects its kernels: one node is one kernel. Nothing runs. A block's count is half the
difference between models of four and of two blocks, so embedding, head and loss cancel out. Views and bookkeeping
do not count.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.train import anf_ir_pb2

from msg_ms import MSGTransformer
from msg_ms.engine.train_step import LossAndGradients
from msg_ms.models.precision import set_precision
from msg_ms.ops import backend
from msg_ms.tasks.classification import ClassificationLoss

try:
    from mindspore.graph.api import _cell_graph_executor as compiler
except ImportError:  # before 2.9
    from mindspore.common.api import _cell_graph_executor as compiler

# One stage of msg_tiny and swin_tiny, on four windows. The smallest activation exceeds the largest parameter.
STAGE = dict(embed_dim=96, num_heads=[3], window_size=7, drop_path_rate=0.2, num_classes=5)
SIDE, BATCH = 56, 8

NO_KERNEL = {
    "Depend", "ExpandDims", "Load", "MakeTuple", "Reshape", "Return", "Squeeze", "StopGradient", "TupleGetItem",
    "UpdateState",
}  # fmt: skip
COPIES = {
    "BroadcastTo", "Concat", "Pack", "Pad", "PadV3", "Roll", "Slice", "Split", "SplitWithSize", "Stack", "StridedSlice",
    "StridedSliceGrad", "Tile", "Unstack",
}  # fmt: skip
ELEMENTWISE = {
    "Add", "AddN", "AddcmulExt", "BiasAdd", "Cast", "Div", "Dropout", "DropoutGrad", "Erf", "Erfc", "Exp", "GeLU",
    "GeLUGrad", "GeluExt", "GeluGradExt", "Mul", "Muls", "Neg", "Pow", "PowTensorScalar", "RealDiv", "Square", "Sub",
}  # fmt: skip
COLUMNS = ("primitives", "transposes", "elementwise passes", "copies")


def training_graph(loss_cell: nn.Cell, *inputs: Tensor) -> list[tuple[str, int]]:
    """Return name and size in elements of every primitive in the graph of loss and gradients."""
    graph = LossAndGradients(loss_cell.set_train(), ms.ParameterTuple(loss_cell.trainable_params()))
    # For an export the compiler stops where a device would select its kernels.
    name, _ = compiler.compile(graph, *inputs, phase="export", do_convert=False)
    model = anf_ir_pb2.ModelProto()
    model.ParseFromString(compiler._get_func_graph_proto(graph, name, "anf_ir"))
    elements, nodes = {}, []
    for node in model.graph.node:
        if node.output_type.HasField("tensor_type"):
            elements[node.name] = math.prod(axis.size for axis in node.output_type.tensor_type.shape.dim)
        else:  # the shapes of a tuple are not stored; a split's parts together have the size of its input
            elements[node.name] = max((elements.get(source.name, 0) for source in node.input), default=0)
        nodes.append((node.op_type, elements[node.name]))
    return nodes


def count(nodes: list[tuple[str, int]], largest_parameter: int) -> Counter:
    """Count all primitives by name, and the groups of ``COLUMNS``; the last two on activations only."""
    total = Counter()
    for name, elements in nodes:
        if name in NO_KERNEL:
            continue
        activation = elements > largest_parameter
        total[name] += 1
        total["primitives"] += 1
        total["transposes"] += name == "Transpose"
        total["elementwise passes"] += name in ELEMENTWISE and activation
        total["copies"] += name in COPIES and activation
    return total


def block_counts(build, level: str) -> dict[str, float]:
    """Return the counts of a block.

    Args:
        build: Function from the number of blocks and the precision level to a loss cell and its inputs.
        level: "O0", "O1" or "O2".
    """
    totals = []
    for depth in (2, 4):
        cell, inputs = build(depth, level)
        largest = max(parameter.size for parameter in cell.trainable_params())
        totals.append(count(training_graph(cell, *inputs), largest))
    few, many = totals
    return {name: (many[name] - few[name]) / 2 for name in sorted(many)}


def images() -> Tensor:
    return Tensor(np.zeros((BATCH, 3, SIDE, SIDE), np.float32))


def labels() -> Tensor:
    return Tensor(np.zeros(BATCH, np.int32))


def ours(depth: int, level: str) -> tuple[nn.Cell, tuple[Tensor, ...]]:
    """Return the loss cell of MSG-Transformer and its inputs."""
    model = MSGTransformer(img_size=SIDE, depths=[depth], shuffle_size=[2], **STAGE)
    set_precision(model, level)
    return ClassificationLoss(model, 0.1), (images(), labels(), Tensor(np.zeros((depth, 2, BATCH), np.float32)))


class PeerLoss(nn.Cell):
    """Cross entropy of the logits of a model that takes images only."""

    def __init__(self, model: nn.Cell):
        super().__init__(auto_prefix=False)
        self.model = model

    def construct(self, x: Tensor, y: Tensor) -> tuple[Tensor]:
        return (ops.cross_entropy(self.model(x).astype(ms.float32), y),)


def swin(depth: int, level: str) -> tuple[nn.Cell, tuple[Tensor, ...]]:
    """Return the loss cell of mindcv's Swin Transformer and its inputs."""
    from mindcv.models.swintransformer import SwinTransformer
    from mindcv.utils.amp import auto_mixed_precision

    model = SwinTransformer(image_size=SIDE, depths=[depth], **STAGE)
    if level != "O0":
        auto_mixed_precision(model, level)
    return PeerLoss(model), (images(), labels())


@contextmanager
def operators_of(device: str) -> Iterator[None]:
    """Compose the operators as on a device, whichever is present."""
    with backend.use_backend("auto"), mock.patch.object(backend, "device_target", lambda: device):
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description="Primitives of one block's training graph.")
    parser.add_argument("--levels", nargs="+", default=["O0", "O1", "O2"])
    parser.add_argument("--all", action="store_true", help="also print the count of every primitive")
    args = parser.parse_args()
    ms.set_context(mode=ms.GRAPH_MODE)
    for level in args.levels:
        rows = {}
        for device in ("GPU", "Ascend"):
            with operators_of(device):
                rows[f"msg_ms, {device}"] = block_counts(ours, level)
        rows["mindcv Swin"] = block_counts(swin, level)
        for name, counts in rows.items():
            figures = "  ".join(f"{counts[column]:6.1f} {column}" for column in COLUMNS)
            print(f"{level}  {name:16} {figures}", flush=True)
            if args.all:
                print("   ", {key: value for key, value in counts.items() if value and key not in COLUMNS}, flush=True)


if __name__ == "__main__":
    main()
