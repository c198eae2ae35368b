"""Calls that skip MindSpore's search for the compiled graph: only if nothing changed, and with the same results."""

import copy

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops
from support.reference import SMALL

from msg_ms import MSGTransformer, optimize_for_inference
from msg_ms.ops import use_backend


def images(count, seed=0):
    side = SMALL["img_size"]
    height, width = (side, side) if isinstance(side, int) else side
    return Tensor(np.random.RandomState(seed).standard_normal((count, 3, height, width)).astype(np.float32))


@pytest.fixture(scope="module")
def model():
    with use_backend("native"):
        return optimize_for_inference(MSGTransformer(**SMALL).set_train(False))


def test_the_next_call_with_such_inputs_runs_the_graph_at_once(model, monkeypatch):
    first, second = images(2), images(2, 1)
    expected = [nn.Cell.__call__(model, x).asnumpy() for x in (first, second)]
    model(first)
    with monkeypatch.context() as patch:
        patch.setattr(nn.Cell, "__call__", lambda *_: pytest.fail("the graph was searched"))
        outputs = [model(x).asnumpy() for x in (first, second)]
    assert all(np.array_equal(*pair) for pair in zip(outputs, expected, strict=True))


def test_other_inputs_run_another_graph(model):
    whole = images(3)
    expected = model(whole).asnumpy()
    for count in (1, 2, 3, 1):
        assert np.array_equal(model(whole[:count]).asnumpy(), expected[:count])
    assert np.array_equal(model(x=whole).asnumpy(), expected)


def test_a_copy_runs_its_own_graph(model):
    x = images(1)
    expected = model(x).asnumpy()
    other = copy.deepcopy(model)
    other.head.bias.set_data(other.head.bias + 1)
    assert np.allclose(other(x).asnumpy(), expected + 1, atol=1e-5)
    assert np.array_equal(model(x).asnumpy(), expected)


def test_new_weights_of_the_head_count(model):
    x = images(1)
    expected, bias = model(x).asnumpy(), model.head.bias.asnumpy().copy()
    model.head.bias.set_data(Tensor(bias + 1))
    assert np.allclose(model(x).asnumpy(), expected + 1, atol=1e-5)
    model.head.bias.set_data(Tensor(bias))


def test_in_pynative_mode_and_in_another_cell(model):
    x = images(1)
    expected = model(x).asnumpy()

    class Outer(nn.Cell):
        def __init__(self):
            super().__init__()
            self.model = model

        def construct(self, x):
            return ops.relu(self.model(x))

    assert np.array_equal(Outer()(x).asnumpy(), np.maximum(expected, 0))
    ms.set_context(mode=ms.PYNATIVE_MODE)
    try:
        assert np.array_equal(model(x).asnumpy(), expected)
    finally:
        ms.set_context(mode=ms.GRAPH_MODE)
    assert np.array_equal(model(x).asnumpy(), expected)


def test_errors_are_those_of_the_graph(model):
    model(images(1))
    with pytest.raises(ValueError, match="channels"):
        model(Tensor(np.zeros((1, 4, 56, 56), np.float32)))


def test_a_model_that_can_still_change_is_not_affected():
    assert not MSGTransformer(**SMALL).repeats_calls
