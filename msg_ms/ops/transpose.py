"""Transposition of the axes of large tensors.

MindSpore's operator on CPU stores an index of eight bytes or more for every element as long as the graph exists.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops import constexpr

from .backend import kernel


class Transpose(nn.Cell):
    """Reorder the axes of a tensor, ``x.transpose(*axes)``."""

    def __init__(self):
        super().__init__()
        back = kernel("transpose", lambda x, *_: x)

        def bprop(x, settings, inverse, out, dout):
            return back(dout, inverse, settings), ops.zeros_like(settings), ops.zeros_like(inverse)

        # MindSpore selects a compiled kernel by the shapes of its inputs, so x and the output have one axis.
        self.native = kernel("transpose", lambda x, *_: x, gradient=bprop)

    def construct(self, x: Tensor, axes: tuple[int, ...]) -> Tensor:
        """Return ``x`` with the axes in the order ``axes``.

        Args:
            x: a tensor of any shape; only float32 has a native kernel.
            axes: for every axis of the output, its number in ``x``.

        Returns:
            A tensor of the same type.
        """
        if self.native is None or x.dtype != ms.float32:
            return x.transpose(axes)
        shape: tuple[int, ...] = ()
        for axis in axes:
            shape = (*shape, x.shape[axis])
        return self.native(x.reshape(-1), _settings(x.shape, axes), _settings(shape, _inverse(axes))).reshape(shape)


@constexpr
def _settings(shape, axes):
    """Return a shape and the axes of a transposition as the kernel reads them, float32 (2 * axes,)."""
    return Tensor(np.array([*shape, *axes], np.float32))


@constexpr
def _inverse(axes):
    return tuple(int(i) for i in np.argsort(axes))
