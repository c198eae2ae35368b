"""Ten steps of the shipped training step against the paper's recipe in PyTorch (AdamW, warm-up, cosine, clipping)."""

import json

import numpy as np
import pytest
from support.reference import FIXTURES, Case

from msg_ms.config import load_config
from msg_ms.convert import export_state_dict
from msg_ms.engine.optim import build_optimizer, has_weight_decay
from msg_ms.engine.schedule import build_schedule
from msg_ms.engine.train_step import LossAndGradients, OptimizerStep, TrainStep
from msg_ms.tasks.classification import ClassificationLoss

NAME = "trajectory_options_win4_64"


@pytest.fixture(scope="module")
def recipe():
    return json.loads((FIXTURES / f"{NAME}.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def reference():
    with np.load(FIXTURES / f"{NAME}.npz") as file:
        return dict(file)


def train_config(recipe):
    """The recipe as a configuration whose epoch is one step of BASE_BATCH_SIZE images."""
    return load_config(
        None,
        TRAIN__BASE_LR=recipe["base_lr"],
        TRAIN__WARMUP_LR=recipe["warmup_lr"],
        TRAIN__MIN_LR=recipe["min_lr"],
        TRAIN__EPOCHS=recipe["total_steps"],
        TRAIN__WARMUP_EPOCHS=recipe["warmup_steps"],
        TRAIN__WEIGHT_DECAY=recipe["weight_decay"],
        TRAIN__CLIP_GRAD=recipe["clip_grad_norm"],
    ).train


def test_ten_steps(recipe, reference):
    model = Case(FIXTURES / "options_win4_64.npz").model(drop_path_rate=0.0)
    config = train_config(recipe)
    optimizer = build_optimizer(config, model.trainable_params())
    gradients = LossAndGradients(ClassificationLoss(model, recipe["label_smoothing"]), optimizer.targets)
    step = TrainStep(gradients, OptimizerStep(optimizer, config.clip_grad))
    schedule = build_schedule(config, 1, config.base_batch_size)
    noise = np.zeros((4, 2, len(reference["ys"][0])), np.float32)
    for k in range(recipe["total_steps"]):
        lr = schedule.at_step(k)
        assert abs(lr - reference["lrs"][k]) < 1e-9
        (loss,), norm = step.run([(reference["xs"][k], reference["ys"][k].astype(np.int32), noise)], lr)
        assert abs(loss - reference["losses"][k]) < 1e-4, k
        assert abs(norm / reference["grad_norms"][k] - 1) < 1e-3, k
    final = export_state_dict({p.name: p.asnumpy() for p in model.get_parameters()}, buffers=False)
    for name, value in final.items():
        difference = np.abs(value - reference[f"final/{name}"])
        if name.endswith("rel_pos_msg"):
            # The message row's bias is the same for all keys, so softmax cancels it: its gradient is zero in exact
            # arithmetic, and Adam blows rounding up to whole steps.
            difference = difference[:, 0]
        assert difference.max() < 1e-4, name


def test_weight_decay_groups_are_the_papers(recipe):
    model = Case(FIXTURES / "options_win4_64.npz").model()
    names = {p.name: has_weight_decay(p) for p in model.trainable_params()}
    as_torch = export_state_dict({name: np.array(value) for name, value in names.items()}, buffers=False)
    assert {name for name, value in as_torch.items() if value} == set(recipe["decay"])
    assert {name for name, value in as_torch.items() if not value} == set(recipe["no_decay"])
