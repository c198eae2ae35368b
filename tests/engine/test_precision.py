"""Half precision: what stays single, and updates whose gradients overflow."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from mindspore.amp import StaticLossScaler
from support.reference import FIXTURES, SMALL, Case

from msg_ms import MSGTransformer, UserError
from msg_ms.config import AmpConfig, load_config
from msg_ms.engine.device import check_half_precision
from msg_ms.engine.ema import WeightEMA
from msg_ms.engine.loss_scale import build_scaler, scaler_state
from msg_ms.engine.optim import build_optimizer
from msg_ms.engine.train_step import LossAndGradients, OptimizerStep, build_step
from msg_ms.models.precision import HALVES, set_precision
from msg_ms.ops import use_backend
from msg_ms.tasks.classification import ClassificationLoss


@pytest.mark.parametrize(
    "level, half",
    [("O1", "float16"), ("O1", "bfloat16"), *(pytest.param("O2", h, marks=pytest.mark.slow) for h in HALVES)],
)
def test_a_case_of_the_paper_in_half_precision(level, half):
    case = Case(FIXTURES / "options_win4_64.npz")
    model = case.model(drop_path_rate=0.0)
    set_precision(model, level, half)
    images, labels = case.inputs()
    logits = model(Tensor(images))
    assert logits.dtype == ms.float32
    difference = np.abs(logits.asnumpy() - case.arrays["logits"]).max()
    bound = 5e-3 if half == "float16" else 2e-2
    assert 1e-5 < difference < bound  # half precision was at work, and did not hurt

    # The gradient through the scaled loss, unscaled, against the paper's in single precision.
    scaler = StaticLossScaler(1024.0)
    gradients = LossAndGradients(ClassificationLoss(model), model.trainable_params(), scaler)
    (loss,), found = gradients(Tensor(images), Tensor(labels), Tensor(np.zeros((4, 2, 2), np.float32)))
    assert abs(float(loss.asnumpy()) - case.arrays["loss"]) < bound
    assert {gradient.dtype for gradient in found} == {ms.float32}
    by_name = {p.name: g.asnumpy() / 1024 for p, g in zip(model.trainable_params(), found, strict=True)}
    for ours, theirs in (("head.weight", "head.weight"), ("layers.0.blocks.0.mlp.fc1.weight",) * 2):
        wanted = case.arrays[f"grad/{theirs}"]
        assert np.linalg.norm(by_name[ours] - wanted) < 0.02 * np.linalg.norm(wanted)


class Training:
    """A small model with a loss scale of 8 and the average of its weights, fed soft labels."""

    def __init__(self, count: int, **amp):
        self.model = MSGTransformer(**SMALL)
        self.count = count
        set_precision(self.model, "O1")
        config = load_config(None, TRAIN__OPTIMIZER__NAME="adamw")
        self.optimizer = build_optimizer(config.train, self.model.trainable_params())
        self.scaler = build_scaler("O1", AmpConfig(**{"loss_scale": 8.0, "window": 2, **amp}))
        self.average = WeightEMA(self.optimizer.targets, 0.9)
        gradients = LossAndGradients(ClassificationLoss(self.model), self.optimizer.targets, self.scaler)
        self.step = build_step(gradients, OptimizerStep(self.optimizer, 1.0, self.scaler, self.average), count)
        self.draws = np.random.RandomState(0)

    def update(self, spoilt: bool = False) -> tuple[float, float]:
        batches = []
        for _ in range(self.count):
            labels = np.eye(3, dtype=np.float32)[self.draws.randint(0, 3, 2)]
            batches.append((self.draws.randn(2, 3, 32, 32).astype(np.float32), labels, np.zeros((2, 2, 2), np.float32)))
        if spoilt:
            batches[-1][1][0, 0] = np.inf
        return self.step.run(batches, 1e-3)

    def values(self) -> dict[str, np.ndarray]:
        everything = {p.name: p for p in self.model.get_parameters()}
        everything |= self.optimizer.state() | {f"ema.{n}": p for n, p in self.average.state().items()}
        return {name: p.asnumpy().copy() for name, p in everything.items()}

    @property
    def scale(self) -> float:
        return float(self.scaler.scale_value.asnumpy())


@pytest.mark.parametrize("count", (1, pytest.param(2, marks=pytest.mark.slow)))
def test_an_overflow_changes_nothing_but_the_scale(count):
    training = Training(count)
    training.update()
    before = training.values()
    _, norm = training.update(spoilt=True)
    assert not np.isfinite(norm) and training.scale == 4.0
    after = training.values()
    assert all((before[name] == after[name]).all() for name in before)
    _, norm = training.update()  # the sums of an accumulated update begin at zero again
    assert np.isfinite(norm) and training.scale == 4.0
    assert any((after[name] != value).any() for name, value in training.values().items())
    training.update()
    assert training.scale == 8.0  # twice without an overflow
    assert scaler_state(training.scaler).keys() == {"scale_value", "counter"}


def test_a_fixed_scale_stays():
    training = Training(1, dynamic=False)
    training.update(spoilt=True)
    assert training.scale == 8.0


def test_bfloat16_where_the_device_lacks_it():
    check_half_precision("O0", "bfloat16")
    check_half_precision("O1", "float16")
    check_half_precision("O2", "bfloat16")  # the native kernels have it
    with use_backend("composed"):
        check_half_precision("O1", "float16")
        with pytest.raises(UserError, match=r"AMP.DTYPE=bfloat16: this CPU has no matrix products of that type; use A"):
            check_half_precision("O2", "bfloat16")
    assert build_scaler("O1", AmpConfig(dtype="bfloat16")) is None and build_scaler("O0", AmpConfig()) is None


def test_averaged_weights_follow_their_recurrence():
    """Against NumPy in double precision over eight updates, and compile_time_property in the weights' place."""
    training = Training(1)
    expected = {n: v.astype(np.float64) for n, v in training.values().items() if "ema." + n in training.values()}
    assert len(expected) == len(training.optimizer.targets)
    start = {name: value.copy() for name, value in expected.items()}
    for _ in range(8):
        training.update()
        weights = training.values()
        expected = {name: 0.9 * value + 0.1 * weights[name] for name, value in expected.items()}
    for name, value in expected.items():
        assert np.abs(weights[f"ema.{name}"] - value).max() < 1e-6, name
    assert max(np.abs(value - start[name]).max() for name, value in expected.items()) > 1e-3

    image = Tensor(np.ones((1, 3, 32, 32), np.float32))
    training.model.set_train(False)
    own = training.model(image).asnumpy()
    with training.average.swapped_in():
        averaged = training.model(image).asnumpy()
        assert all(np.allclose(p.asnumpy(), expected[p.name], atol=1e-6) for p in training.optimizer.targets)
    assert (training.model(image).asnumpy() == own).all() and (averaged != own).any()
    assert all((weights[name] == value).all() for name, value in training.values().items())
