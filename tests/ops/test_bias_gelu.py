"""The composed GELU and its own gradient against the error function of the standard library."""

import math

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from msg_ms.ops import BiasGelu


@pytest.mark.parametrize("mode", (ms.PYNATIVE_MODE, ms.GRAPH_MODE))
def test_gelu_and_its_gradients_are_exact(mode):
    ms.set_context(mode=mode)
    x = np.linspace(-12, 12, 97).reshape(-1, 1).astype(np.float32)
    bias, weight = np.float32([0.25]), np.random.RandomState(0).rand(*x.shape).astype(np.float32)
    layer = BiasGelu()

    def weighted(x, bias):
        return (layer(x, bias) * Tensor(weight)).sum()

    gradients = [g.asnumpy() for g in ms.grad(weighted, (0, 1))(Tensor(x), Tensor(bias))]
    z = (x + bias).astype(np.float64)
    cdf = np.vectorize(math.erfc)(-z / math.sqrt(2)) / 2
    wanted = weight * (cdf + z * np.exp(-z * z / 2) / math.sqrt(2 * math.pi))
    assert np.abs(layer(Tensor(x), Tensor(bias)).asnumpy() - z * cdf).max() < 1e-6
    assert np.abs(gradients[0] - wanted).max() < 1e-6
    assert abs(gradients[1][0] - wanted.sum()) < 1e-5


def test_half_precision_stays_within_its_rounding():
    x, bias = np.linspace(-5, 5, 64).reshape(-1, 1).astype(np.float16), np.float32([0.0])
    y = BiasGelu()(Tensor(x), Tensor(bias), ms.float16)
    assert y.dtype == ms.float16
    exact = [v * math.erfc(-v / math.sqrt(2)) / 2 for v in x.astype(float).ravel()]
    assert np.abs(y.asnumpy().ravel() - exact).max() < 4e-3
