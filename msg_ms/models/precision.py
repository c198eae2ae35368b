"""Mixed precision: what is computed in half precision, and what stays single.

| level | matrix products, convolutions | passed between layers | parameters, LayerNorm, softmax, biases, loss |
|---|---|---|---|
| O0 | single | single | single |
| O1 | half | single | single |
| O2 | half | half | single |

"Half" is float16 or bfloat16. A parameter's gradient is single at every level: the cast to half is inside the graph.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import nn

from .msg_transformer import MSGTransformer

HALVES = {"float16": ms.float16, "bfloat16": ms.bfloat16}


def set_precision(model: MSGTransformer, level: str, half: str = "float16") -> None:
    """Set what every layer of ``model`` computes in, and what it gives; the logits are single at every level."""
    product = ms.float32 if level == "O0" else HALVES[half]
    stream = HALVES[half] if level == "O2" else ms.float32
    for _, cell in model.cells_and_names():
        _set_where_present(cell, "product_dtype", product)
        _set_where_present(cell, "stream_dtype", stream)
        _set_where_present(cell, "single", level == "O0")
    _set_where_present(model.head, "stream_dtype", ms.float32)


def _set_where_present(cell: nn.Cell, name: str, value: ms.Type) -> None:
    if hasattr(cell, name):
        setattr(cell, name, value)
