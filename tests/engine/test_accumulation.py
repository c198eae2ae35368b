"""Accumulation over N batches against one batch of N times the size."""

import numpy as np
import pytest
from support.reference import FIXTURES, Case

from msg_ms.config import load_config
from msg_ms.data import EpochOrder, Shard
from msg_ms.data.pipeline import drop_path_noise
from msg_ms.engine.optim import build_optimizer
from msg_ms.engine.train_step import LossAndGradients, OptimizerStep, build_step
from msg_ms.tasks.classification import ClassificationLoss

UPDATES, BATCH = 5, 8
# Adam turns the rounding of tiny gradients into parts of a rate; the recipe's for 8 images is a twelfth of this one.
RATES = {"sgd": 0.1, "adamw": 1e-4}


def train(count: int, optimizer_name: str) -> dict[str, np.ndarray]:
    """Parameters after five updates of BATCH images, each cut into ``count`` batches."""
    model = Case(FIXTURES / "options_win4_64.npz").model(drop_path_rate=0.2)
    config = load_config(None, TRAIN__OPTIMIZER__NAME=optimizer_name).train
    optimizer = build_optimizer(config, model.trainable_params())
    gradients = LossAndGradients(ClassificationLoss(model, 0.1), optimizer.targets)
    step = build_step(gradients, OptimizerStep(optimizer, 1.0), count)
    data = np.random.RandomState(0)
    for update in range(UPDATES):
        images = data.randn(BATCH, 1, 64, 64).astype(np.float32)
        labels = data.randint(0, 7, BATCH).astype(np.int32)
        draws = drop_path_noise(4, BATCH, 0, update)
        cuts = [slice(i, i + BATCH // count) for i in range(0, BATCH, BATCH // count)]
        (loss,), norm = step.run([(images[cut], labels[cut], draws[..., cut]) for cut in cuts], RATES[optimizer_name])
        assert np.isfinite([loss, norm]).all()
    return {p.name: p.asnumpy() for p in model.get_parameters()}


@pytest.mark.parametrize("optimizer", (pytest.param("sgd", marks=pytest.mark.slow), "adamw"))
def test_accumulation_equals_the_large_batch(optimizer):
    whole = train(1, optimizer)
    start = {p.name: p.asnumpy() for p in Case(FIXTURES / "options_win4_64.npz").model().get_parameters()}
    assert max(np.abs(whole[name] - start[name]).max() for name in whole) > 1e-4  # it did train
    for count in (2, 4):
        for name, value in train(count, optimizer).items():
            difference = np.abs(value - whole[name])
            if name.endswith("rel_pos_msg"):
                difference = difference[:, 0]  # the message row's gradient is zero but for rounding
            assert difference.max() < 1e-6, (count, name)


def test_a_wrong_number_of_batches_is_refused():
    model = Case(FIXTURES / "options_win4_64.npz").model()
    optimizer = build_optimizer(load_config(None).train, model.trainable_params())
    gradients = LossAndGradients(ClassificationLoss(model, 0.1), optimizer.targets)
    step = build_step(gradients, OptimizerStep(optimizer, 1.0), 2)
    with pytest.raises(ValueError, match="needs 2 batches, got 1"):
        step.run([(np.zeros(1), np.zeros(1), np.zeros(1))], 1e-3)


def test_an_update_holds_the_same_images_however_it_is_cut():
    large = EpochOrder(100, 24, seed=5)
    for batch, world, accumulation in ((12, 1, 2), (6, 2, 2), (2, 3, 4)):
        parts = [EpochOrder(100, batch, 5, Shard(rank, world), accumulation) for rank in range(world)]
        assert all(part.steps == large.steps == 4 for part in parts)
        for epoch in (0, 1):
            together = np.concatenate([part.indices(epoch).reshape(4, -1) for part in parts], 1)
            assert (together == large.indices(epoch).reshape(4, 24)).all()
