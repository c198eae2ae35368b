"""Padding with zeros: its gradient must not depend on the memory that an operator writes to."""

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from msg_ms.ops import pad_axis


class Padded(nn.Cell):
    def construct(self, x):
        return pad_axis(pad_axis(x * 1.5, 1, 2, 1), 2, 0, 3)


class Gradient(nn.Cell):
    def __init__(self):
        super().__init__()
        self.padded = Padded()
        self.grad = ops.grad(self.product)

    def product(self, x, w):
        return (self.padded(x) * w).sum()

    def construct(self, x, w):
        return self.grad(x, w)


class Dirt(nn.Cell):
    def construct(self, x):
        return (x * float("nan")).sum(), (ops.exp(x) * float("nan")).sum()


def test_padding_and_its_gradient_in_used_memory():
    ms.set_context(mode=ms.GRAPH_MODE)
    draws = np.random.RandomState(0)
    x, w = draws.randn(8, 14, 12, 16).astype(np.float32), draws.randn(8, 17, 15, 16).astype(np.float32)
    np.testing.assert_array_equal(Padded()(Tensor(x)).asnumpy(), np.pad(1.5 * x, ((0, 0), (2, 1), (0, 3), (0, 0))))
    gradient, dirt = Gradient(), Dirt()
    for _ in range(3):
        np.testing.assert_array_equal(gradient(Tensor(x), Tensor(w)).asnumpy(), np.float32(1.5) * w[:, 2:16, :12])
        for size in (x.size, w.size, 2 * x.size):  # the pool of memory fills with NaN
            assert np.isnan(dirt(Tensor(np.ones(size, np.float32)))[0].asnumpy())
