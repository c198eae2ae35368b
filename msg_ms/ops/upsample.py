"""Nearest-neighbour upsampling, added to a larger map. Shape letters: B images, C channels, H x W pixels."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops import constexpr

from .backend import kernel


class UpsampleAdd(nn.Cell):
    """Resize maps to the size of larger ones by nearest neighbours, as PyTorch does, and add them.

    The native kernel needs no memory but the sum's; the composed form needs that of two more maps.
    """

    def __init__(self):
        super().__init__()
        grad = kernel("upsample_add_grad", lambda dout, small, *_: small)

        def bprop(x, small, rows, columns, out, dout):
            return dout, grad(dout, small, rows, columns), ops.zeros_like(rows), ops.zeros_like(columns)

        self.native = kernel("upsample_add", lambda x, *_: x, gradient=bprop)

    def construct(self, x: Tensor, small: Tensor) -> Tensor:
        """Return ``x`` plus the resized maps.

        Args:
            x: (B, C, H, W).
            small: (B, C, h, w), in the type of ``x``.

        Returns:
            (B, C, H, W).
        """
        height, width = x.shape[2:]
        batch, channels, rows, columns = small.shape
        if self.native is not None and x.dtype == ms.float32:
            return self.native(
                x, small, _sources(rows, height).astype(ms.float32), _sources(columns, width).astype(ms.float32)
            )
        if height == 2 * rows and width == 2 * columns:
            small = ops.broadcast_to(small.reshape(-1, rows, 1, columns, 1), (batch * channels, rows, 2, columns, 2))
            return x + small.reshape(x.shape)
        return x + ops.gather(ops.gather(small, _sources(rows, height), 2), _sources(columns, width), 3)


@constexpr
def _sources(size, new_size):
    """Return the pixel that each new pixel copies, int32 (new_size,), with PyTorch's rounding in single precision."""
    scale = np.float32(size) / np.float32(new_size)
    index = np.floor(np.arange(new_size, dtype=np.float32) * scale).astype(np.int32)
    return Tensor(np.minimum(index, size - 1), ms.int32)
