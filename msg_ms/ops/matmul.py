"""Products of rows with a weight matrix."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from .backend import kernel


class MatMul(nn.Cell):
    """x w^T, (rows, in), (out, in) -> (rows, out): MindSpore's MatMul, or a native kernel where there is one.

    On CPU MatMul lays a weight out anew at every call, which costs most where rows are few.
    """

    def __init__(self):
        super().__init__()
        grad_rows = kernel("product_grad_rows", lambda weight, dy: [dy[0], weight[1]])
        grad_weight = kernel("product_grad_weight", lambda x, dy: [dy[1], x[1]])

        def bprop(x, weight, out, dout):
            return grad_rows(weight, dout), grad_weight(x, dout)

        self.native = kernel("product", lambda x, weight: [x[0], weight[0]], gradient=bprop)
        self.matmul = ops.MatMul(transpose_b=True)

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        if self.native is None or x.dtype != ms.float32 or weight.dtype != ms.float32:
            return self.matmul(x, weight)
        return self.native(x, weight)
