"""Batch normalization with the statistics of some samples. Shape letters: N samples, C channels, H x W pixels."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from .backend import kernel

EPSILON = 1e-5  # as in PyTorch


class MaskedBatchNorm(nn.Cell):
    """Batch normalization (Ioffe and Szegedy, 2015) in training, with a weight for each sample in the statistics.

    The native kernel needs three passes over the maps. The composed form needs about twenty, forward and backward, and
    on CPU 16 bytes of indices per element in each of its broadcasts.

    Args:
        relu: apply a ReLU at the end.
        all_reduce: sums the statistics over devices; None for the own batch.
    """

    def __init__(self, relu: bool = False, all_reduce: nn.Cell | None = None):
        super().__init__()
        self.relu, self.all_reduce = relu, all_reduce
        self.one, self.settings = Tensor(1.0, ms.float32), Tensor(np.array([relu], np.float32))
        grad = kernel("masked_batch_norm_grad", lambda x, weights, gamma, *_: (x, gamma, gamma), 3)

        def bprop(x, weights, gamma, beta, settings, out, dout):
            dx, dgamma, dbeta = grad(x, weights, gamma, out[0], out[1], out[2], dout[0], settings)
            return dx, ops.zeros_like(weights), dgamma, dbeta, ops.zeros_like(settings)

        self.native = kernel("masked_batch_norm", lambda x, weights, gamma, *_: (x, gamma, gamma), 3, bprop)

    def construct(
        self, x: Tensor, weights: Tensor, gamma: Tensor, beta: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Normalize all samples.

        Args:
            x: (N, C, H, W) in single precision.
            weights: (N,), usually 1 for samples that count in the statistics and 0 for the others.
            gamma: (C,), factor.
            beta: (C,), offset.

        Returns:
            Normalized maps (N, C, H, W); mean and biased variance (C,), through which no gradient flows; and the number
            of values that they are means of, a scalar.
        """
        _, channels, height, width = x.shape
        count = weights.sum() * float(height * width)
        if self.native is not None and self.all_reduce is None and x.dtype == ms.float32:
            found = self.native(x, weights, gamma, beta, self.settings)
            return found[0], ops.stop_gradient(found[1]), ops.stop_gradient(found[2]), count
        mean, count = self._mean(x, weights, count)
        centred = x - mean.reshape(1, channels, 1, 1)
        variance = self._mean(centred * centred, weights, count, counted=True)[0]
        factor = gamma / ops.sqrt(variance + EPSILON)
        y = centred * factor.reshape(1, -1, 1, 1) + beta.reshape(1, -1, 1, 1)
        y = ops.relu(y) if self.relu else y
        return y, ops.stop_gradient(mean), ops.stop_gradient(variance), count

    def _mean(self, x: Tensor, weights: Tensor, count: Tensor, counted: bool = False) -> tuple[Tensor, Tensor]:
        """Return the weighted mean (C,) over all devices, and their number of values; ``counted``: it is ``count``."""
        total = (x.sum((2, 3)) * weights.expand_dims(-1)).sum(0)
        if self.all_reduce is not None:
            summed = self.all_reduce(ops.cat((total, count.reshape(1))))
            total, count = summed[:-1], count if counted else summed[-1]
        return total / ops.maximum(count, self.one), count
