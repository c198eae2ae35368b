"""AdamW and SGD against PyTorch's published update rules, in NumPy and double precision."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor

from msg_ms import ops
from msg_ms.engine.optim import SGD, AdamW

SHAPES = {"a.weight": (3, 4), "a.bias": (4,), "x.rel_pos_msg": (2, 2, 1, 1), "b.weight": (130, 300)}
RATES = (0.1, 0.05, 0.2, 0.01)
FACTOR = np.float32(0.7)


def parameters():
    draws = np.random.RandomState(0)
    return [Parameter(Tensor(draws.randn(*shape).astype(np.float32)), name=name) for name, shape in SHAPES.items()]


def gradients():
    draws = np.random.RandomState(1)
    # Tiny ones too: there the place of eps shows.
    return [
        [(draws.randn(*s) * 10.0 ** -draws.randint(0, 9)).astype(np.float32) for s in SHAPES.values()] for _ in RATES
    ]


def run(optimizer, targets):
    for rate, grads in zip(RATES, gradients(), strict=True):
        optimizer(tuple(map(Tensor, grads)), Tensor(rate, ms.float32), Tensor(FACTOR))
    return [target.asnumpy() for target in targets]


@pytest.mark.parametrize("mode", (ms.GRAPH_MODE, ms.PYNATIVE_MODE))
@pytest.mark.parametrize("choice, rounding", (("native", 1e-6), ("composed", 2e-6)))  # MindSpore's takes 1 - 0.99f
def test_adamw(choice, rounding, mode):
    ms.set_context(mode=mode)
    targets = parameters()
    values = [t.asnumpy().astype(np.float64) for t in targets]
    with ops.use_backend(choice):
        optimizer = AdamW(targets, (0.9, 0.99), 1e-8, 0.3)
    assert (optimizer.step.native is None) == (choice == "composed")
    found, state = run(optimizer, targets), {name: p.asnumpy() for name, p in optimizer.state().items()}
    for i, decay in enumerate((0.3, 0.0, 0.0, 0.3)):
        p, m, v = values[i], 0.0, 0.0
        for t, (rate, grads) in enumerate(zip(RATES, gradients(), strict=True), 1):
            g = FACTOR * grads[i].astype(np.float64)
            p = p * (1 - rate * decay)
            m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
            p = p - rate / (1 - 0.9**t) * m / (np.sqrt(v) / np.sqrt(1 - 0.99**t) + 1e-8)
        name = targets[i].name
        assert np.abs(found[i] - p).max() < 1e-5, name
        for moment, expected in ((f"moment1.{name}", m), (f"moment2.{name}", v)):
            assert np.abs(state[moment] - expected).max() <= rounding * np.abs(expected).max(), moment
    assert state["updates"] == len(RATES)


def test_sgd_with_nesterov_momentum():
    targets = parameters()
    values = [t.asnumpy().astype(np.float64) for t in targets]
    found = run(SGD(targets, 0.9, 0.3), targets)
    for i, decay in enumerate((0.3, 0.0, 0.0, 0.3)):
        p, velocity = values[i], 0.0
        for rate, grads in zip(RATES, gradients(), strict=True):
            g = FACTOR * grads[i] + decay * p
            velocity = 0.9 * velocity + g
            p = p - rate * (g + 0.9 * velocity)
        assert np.abs(found[i] - p).max() < 1e-5


@pytest.mark.parametrize("kind", (AdamW, SGD))
def test_state_holds_no_parameter_of_the_model(kind):
    targets = parameters()
    optimizer = AdamW(targets, (0.9, 0.99), 1e-8, 0.3) if kind is AdamW else SGD(targets, 0.9, 0.3)
    assert [t.name for t in targets] == list(SHAPES)
    assert not set(SHAPES) & {p.name for p in optimizer.state().values()}
