"""Patches of the overlapped convolutions as rows for a matrix product, in the order of windows."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops import constexpr

from .backend import kernel


@constexpr
def _numbers(*values: int) -> Tensor:
    return Tensor(np.array(values, np.float32))


class ImagePatches(nn.Cell):
    """(B, C, height, width) -> (B*R*G*w*w, C * k * k): the k x k patches ``stride`` apart, window by window.

    Native only: ``available`` tells. Patch (y, x) of an image is the row of token (y, x) in
    :func:`window_partition`; within it channels come first, as in a Conv2d's weight (O, C, k, k).
    """

    def __init__(self, kernel_size: int, stride: int, padding: int):
        super().__init__()
        self.geometry = (kernel_size, stride, padding)
        grad = kernel("image_patches_grad", lambda layout, dpatches, x: x)

        def bprop(x, layout, out, dout):
            return grad(layout, dout, x), ops.zeros_like(layout)

        def shapes(x, layout):
            rows, columns = ((side + 2 * padding - kernel_size) // stride + 1 for side in x[2:])
            return [x[0] * rows * columns, x[1] * kernel_size**2]

        self.native = kernel("image_patches", shapes, gradient=bprop)
        self.available = self.native is not None

    def construct(self, x: Tensor, window_size: int, shuffle_size: int) -> Tensor:
        return self.native(x.astype(ms.float32), _numbers(window_size, shuffle_size, *self.geometry))


class TokenPatches(nn.Cell):
    """Tokens (B*R, G, N, C) -> (B*R'*G'*N, 9*C): the 3x3 patches, two apart, of patch tokens and of messages.

    Native only: ``available`` tells. The rows are in the next stage's order of windows, each window's message first;
    within them channels come first, as in a Conv2d's weight (O, C, 3, 3).
    """

    def __init__(self):
        super().__init__()
        grad = kernel("token_patches_grad", lambda layout, dpatches: [4 * dpatches[0], dpatches[1] // 9])

        def bprop(x, layout, out, dout):
            return grad(layout, dout), ops.zeros_like(layout)

        self.native = kernel("token_patches", lambda x, layout: [x[0] // 4, 9 * x[1]], gradient=bprop)
        self.available = self.native is not None

    def construct(self, x: Tensor, height: int, width: int, window_size: int, region: int, next_region: int) -> Tensor:
        rows = x.reshape(-1, x.shape[-1]).astype(ms.float32)
        return self.native(rows, _numbers(height, width, window_size, region, next_region))
