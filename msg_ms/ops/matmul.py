"""The matrix product of rows with a weight."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from .backend import kernel


class MatMul(nn.Cell):
    """The product x w^T, by a native kernel or by MindSpore's MatMul.

    On CPU, MindSpore's MatMul packs the weight at every call, which is slow with few rows.
    """

    def __init__(self):
        super().__init__()
        grad_x = kernel("matmul_grad_x", lambda weight, dy: [dy[0], weight[1]])
        grad_weight = kernel("matmul_grad_weight", lambda x, dy: [dy[1], x[1]])

        def bprop(x, weight, out, dout):
            return grad_x(weight, dout), grad_weight(x, dout)

        self.native = kernel("matmul", lambda x, weight: [x[0], weight[0]], gradient=bprop)
        self.matmul = ops.MatMul(transpose_b=True)

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        """Multiply rows by a weight of the same precision.

        Args:
            x: (rows, in).
            weight: (out, in).

        Returns:
            (rows, out).
        """
        if self.native is None or x.dtype != weight.dtype:
            return self.matmul(x, weight)
        if x.dtype == ms.float32:
            return self.native(x, weight)
        if x.dtype == ms.float16 or x.dtype == ms.bfloat16:
            # As devices compute it: operands in half precision, sums in single precision, and a rounded result.
            # MindSpore's own kernel for these types is many times as slow.
            return self.native(x.astype(ms.float32), weight.astype(ms.float32)).astype(x.dtype)
        return self.matmul(x, weight)
