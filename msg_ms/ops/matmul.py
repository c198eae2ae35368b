"""The matrix product of rows with a weight."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from .backend import Operator, kernel

# The suffixes of the kernels that round the operands of their products to a type.
SUFFIXES = {ms.float32: "", ms.float16: "_float16", ms.bfloat16: "_bfloat16"}


class MatMul(nn.Cell):
    """The product x w^T, by a native kernel or by MindSpore's MatMul.

    On CPU, MindSpore's MatMul packs the weight at every call, which is slow with few rows.
    """

    def __init__(self):
        super().__init__()
        self.matmul = ops.MatMul(transpose_b=True)
        self.dtype: ms.Type | None = None
        self.native = self._kernel(ms.float32)

    def round_operands(self, dtype: ms.Type) -> None:
        """Choose the type of the operands, also of the gradients' products; else they stay as they are.

        Args:
            dtype: float32, float16 or bfloat16.
        """
        if dtype != (self.dtype or ms.float32):
            self.native = self._kernel(dtype)
        self.dtype = dtype

    @staticmethod
    def _kernel(dtype: ms.Type) -> Operator:
        name = "matmul" if dtype == ms.float32 else "rounded_matmul"
        suffix = SUFFIXES[dtype]
        grad_x = kernel(f"{name}_grad_x{suffix}", lambda weight, dy: [dy[0], weight[1]])
        grad_weight = kernel(f"{name}_grad_weight{suffix}", lambda x, dy: [dy[1], x[1]])

        def bprop(x, weight, out, dout):
            return grad_x(weight, dout), grad_weight(x, dout)

        return kernel(f"{name}{suffix}", lambda x, weight: [x[0], weight[0]], gradient=bprop)

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        """Multiply rows by a weight.

        Args:
            x: (rows, in).
            weight: (out, in).

        Returns:
            (rows, out). The native kernel's sums are in single precision, and its result has the type of ``x``.
        """
        if self.native is None:
            dtype = self.dtype or x.dtype
            return self.matmul(x.astype(dtype), weight.astype(dtype))
        # MindSpore's own kernel for half precision is many times as slow.
        return self.native(x.astype(ms.float32), weight.astype(ms.float32)).astype(x.dtype)
