"""Patches of the overlapped convolutions as rows of a matrix product, in window order.

Shape letters as in ``windows.py``.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops import constexpr

from .backend import kernel


@constexpr
def constant(*values: int) -> Tensor:
    """Return whole numbers as a constant of the graph."""
    return Tensor(np.array(values, np.float32))


class ImagePatches(nn.Cell):
    """Unfold the k x k patches of images, window by window, for the patch embedding.

    It needs the native kernels: check ``available``.

    Args:
        kernel_size: side k of a patch in pixels.
        stride: distance of two patches in pixels.
        padding: zeros on all four sides of an image.
    """

    def __init__(self, kernel_size: int, stride: int, padding: int):
        super().__init__()
        self.sizes = (kernel_size, stride, padding)
        grad = kernel("image_patches_grad", lambda sizes, dpatches, x: x)

        def bprop(x, sizes, out, dout):
            return grad(sizes, dout, x), ops.zeros_like(sizes)

        def shapes(x, sizes):
            rows, columns = ((side + 2 * padding - kernel_size) // stride + 1 for side in x[2:])
            return [x[0] * rows * columns, x[1] * kernel_size**2]

        self.native = kernel("image_patches", shapes, gradient=bprop)
        self.available = self.native is not None

    def construct(self, x: Tensor, window_size: int, shuffle_size: int) -> Tensor:
        """Unfold images.

        Args:
            x: (B, C, height, width).
            window_size: w, in patches.
            shuffle_size: s, in windows.

        Returns:
            (B*R*G*w*w, C*k*k), float32. Patch (y, x) is the row of token (y, x) in ``window_partition``. Columns
            are ordered as in the weight (O, C, k, k) of a ``Conv2d``.
        """
        return self.native(x.astype(ms.float32), constant(window_size, shuffle_size, *self.sizes))


class TokenPatches(nn.Cell):
    """Unfold the 3x3 patches with stride 2 of patch tokens and of MSG tokens, for the patch merging.

    It needs the native kernels: check ``available``.
    """

    def __init__(self):
        super().__init__()
        grad = kernel("token_patches_grad", lambda sizes, dpatches: [4 * dpatches[0], dpatches[1] // 9])

        def bprop(x, sizes, out, dout):
            return grad(sizes, dout), ops.zeros_like(sizes)

        self.native = kernel("token_patches", lambda x, sizes: [x[0] // 4, 9 * x[1]], gradient=bprop)
        self.available = self.native is not None

    def construct(
        self, x: Tensor, height: int, width: int, window_size: int, shuffle_size: int, next_shuffle_size: int
    ) -> Tensor:
        """Unfold the tokens of a stage.

        Args:
            x: (B*R, G, N, C).
            height: H, in tokens.
            width: W, in tokens.
            window_size: w, in tokens.
            shuffle_size: s of this stage, in windows.
            next_shuffle_size: s of the next stage.

        Returns:
            (B*R'*G'*N, 9*C), float32, in the window order of the next stage, each window's MSG token first. Columns
            are ordered as in the weight (O, C, 3, 3) of a ``Conv2d``.
        """
        rows = x.reshape(-1, x.shape[-1]).astype(ms.float32)
        return self.native(rows, constant(height, width, window_size, shuffle_size, next_shuffle_size))
