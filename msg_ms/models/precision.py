"""Mixed precision: which parts run in half precision.

| level | matrix products, convolutions | between layers | parameters, LayerNorm, softmax, biases, loss |
|---|---|---|---|
| O0 | single | single | single |
| O1 | half | single | single |
| O2 | half | half | single |

"Half" is float16 or bfloat16. A parameter's gradient is single precision at every level, as the cast to half is in the
graph. The levels follow the names of NVIDIA Apex, which the paper's code uses.

On CPU the native kernels round the operands of products with weights to half. Their sums and outputs are single
precision, and so are the products of queries with keys and of weights with values. MindSpore's CPU operators lack
bfloat16: there O2 is O1, and convolutions without a kernel for bfloat16 are single precision.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import nn

from ..framework.graph_method import GraphMethods
from ..ops import composed_dtype

HALVES = {"float16": ms.float16, "bfloat16": ms.bfloat16}


def default_level(target: str) -> str:
    """Return the precision of a device: float16 saves no time on CPU; the paper's code trains at O1."""
    return "O0" if target == "CPU" else "O1"


def set_precision(model: nn.Cell, level: str, half: str = "float16") -> None:
    """Set the types that the layers of ``model`` compute in and pass on.

    The layers of this package have a method ``set_compute_dtype(matmul, residual)``; other Cells stay unchanged. A
    layer with ``output_float32 = True``, such as the classification head, returns float32 at every level.

    Args:
        model: A model, or a larger Cell that contains one. Set the precision before ``optimize_for_inference``.
        level: "O0", "O1" or "O2"; empty for the device's own, see ``default_level``.
        half: The half-precision type, "float16" or "bfloat16".

    Raises:
        UserError: If the model is optimized for inference.
    """
    level = level or default_level(ms.get_context("device_target"))
    matmul = ms.float32 if level == "O0" else HALVES[half]
    residual = composed_dtype(HALVES[half]) if level == "O2" else ms.float32
    for _, cell in model.cells_and_names():
        set_layer_precision(cell, matmul, residual)
        if isinstance(cell, GraphMethods):
            cell.forget_graphs()


def set_layer_precision(layer: nn.Cell, matmul: ms.Type, residual: ms.Type = ms.float32) -> None:
    """Set the types of a layer's matrix product and of its output, if it has any."""
    if hasattr(layer, "set_compute_dtype"):
        layer.set_compute_dtype(matmul, ms.float32 if getattr(layer, "output_float32", False) else residual)
