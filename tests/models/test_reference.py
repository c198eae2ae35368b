"""The model against the paper's own code: logits, stage features, gradients, parameters, FLOPs."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops
from support.reference import FIXTURES, Case, cases

from msg_ms import create_model
from msg_ms.convert import export_state_dict
from msg_ms.models.variants import SIZES
from msg_ms.ops import backend


class Everything(nn.Cell):
    """((loss, logits, stages), gradients) in one graph."""

    def __init__(self, model):
        super().__init__(auto_prefix=False)
        self.model = model
        self.gradient = ops.value_and_grad(self.forward, None, model.trainable_params(), has_aux=True)

    def forward(self, images, labels):
        logits = self.model(images)
        return ops.cross_entropy(logits, labels), logits, self.model.forward_stages(images)

    def construct(self, images, labels):
        return self.gradient(images, labels)


def check_outputs(case: Case, logits, stages):
    assert np.abs(logits.asnumpy() - case.arrays["logits"]).max() < 1e-5
    for i, stage in enumerate(stages):
        wanted = case.arrays[f"feat/stage{i}"]
        assert stage.shape[1:] == wanted.shape[1:]
        assert np.abs(stage.asnumpy()[: len(wanted)] - wanted).max() < 1e-5, f"stage {i}"


def _graph_cases():
    """All cases with both backends; composed graphs compile slowly, so few of the committed ones run by default."""
    for case in cases():
        for choice in ("native", "composed"):
            slow = choice == "composed" and case.path.parent == FIXTURES and "options" not in case.path.stem
            name = f"{choice}-{case.path.parent.name}-{case.path.stem}"
            yield pytest.param(case, choice, id=name, marks=pytest.mark.slow if slow else ())


@pytest.mark.parametrize(("case", "choice"), list(_graph_cases()))
def test_case_in_graph_mode(case, choice, monkeypatch):
    monkeypatch.setattr(backend, "_chosen", choice)
    model = case.model()
    x, y = case.inputs()
    (loss, logits, stages), gradients = Everything(model)(Tensor(x), Tensor(y))
    check_outputs(case, logits, stages)
    assert abs(float(loss.asnumpy()) - float(case.arrays["loss"])) < 1e-5
    named = {p.name: g.asnumpy() for p, g in zip(model.trainable_params(), gradients, strict=True)}
    errors = {name: case.gradient_error(name, g) for name, g in export_state_dict(named, buffers=False).items()}
    assert len(errors) == sum(name.startswith("grad/") for name in case.arrays)
    assert max(errors.values()) < 1, max(errors, key=errors.get)
    assert sum(p.size for p in model.trainable_params()) == int(case.arrays["num_params"])
    assert model.flops() == float(case.arrays["flops"])
    one = model(Tensor(x[:1])).asnumpy()
    assert np.abs(one - case.arrays["logits"][:1]).max() < 1e-5


def test_case_in_pynative_mode():
    ms.set_context(mode=ms.PYNATIVE_MODE)
    case = Case(FIXTURES / "options_win4_64.npz")
    x, y = case.inputs()
    (_, logits, stages), gradients = Everything(case.model())(Tensor(x), Tensor(y))
    check_outputs(case, logits, stages)
    named = {p.name: g.asnumpy() for p, g in zip(case.model().trainable_params(), gradients, strict=True)}
    assert all(case.gradient_error(name, g) < 1 for name, g in export_state_dict(named, buffers=False).items())


class Stages(nn.Cell):
    def __init__(self, model):
        super().__init__(auto_prefix=False)
        self.model = model

    def construct(self, images):
        return self.model.forward_stages(images)


def test_height_and_width_are_not_mixed_up():
    case = Case(FIXTURES / "rectangular_win4_64x128.npz")
    stages = Stages(case.model())(Tensor(case.inputs()[0]))
    for i, stage in enumerate(stages):
        assert np.abs(stage.asnumpy() - case.arrays[f"feat/stage{i}"]).max() < 1e-5, f"stage {i}"


@pytest.mark.parametrize("name", SIZES)
def test_size_of_the_papers_models(name):
    with ms.nn.utils.no_init_parameters():
        model = create_model(name)
    assert (sum(p.size for p in model.trainable_params()), model.flops()) == SIZES[name]
    assert {p.name for p in model.get_parameters()} == {p.name for p in model.trainable_params()}
