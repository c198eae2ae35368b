"""The native transposition against NumPy, and its gradient."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops

from msg_ms.ops import Transpose

CASES = [
    ((5, 37), (1, 0)),
    ((2, 3, 4, 5), (0, 1, 2, 3)),
    ((2, 21, 3, 70), (0, 3, 1, 2)),
    ((1, 3, 2, 1, 1, 7, 7, 33), (0, 7, 1, 3, 5, 2, 4, 6)),
    ((2, 3, 2, 7, 3, 2, 7, 20), (0, 1, 4, 2, 5, 3, 6, 7)),
    ((2, 2, 2, 19, 6, 5), (0, 3, 4, 1, 5, 2)),
    ((300, 2, 50), (2, 0, 1)),
    ((4, 1), (1, 0)),
    ((1, 1), (1, 0)),
]


@pytest.mark.parametrize("shape, axes", CASES)
def test_transposition_and_its_gradient_match_numpy(shape, axes):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    transpose, draws = Transpose(), np.random.RandomState(0)
    assert transpose.native is not None
    x, w = draws.randn(*shape).astype(np.float32), draws.randn(*(shape[i] for i in axes)).astype(np.float32)
    assert np.array_equal(transpose(Tensor(x), axes).asnumpy(), x.transpose(axes))
    gradient = ops.grad(lambda a: (transpose(a, axes) * Tensor(w)).sum())(Tensor(x))
    assert np.array_equal(gradient.asnumpy(), w.transpose(np.argsort(axes)))


def test_other_types_are_composed():
    x = np.arange(6, dtype=np.int32).reshape(2, 3)
    assert np.array_equal(Transpose()(Tensor(x), (1, 0)).asnumpy(), x.T)
