"""Schedules against formulas of the paper's code written out for single steps."""

import math

import numpy as np
import pytest
from support.reference import FIXTURES

from msg_ms.config import load_config
from msg_ms.engine.schedule import build_schedule


def schedule(**overrides):
    settings = {f"TRAIN__{name}": value for name, value in overrides.items()}
    return build_schedule(load_config(None, **settings).train, steps_per_epoch=100, samples_per_step=1024)


def test_the_imagenet_recipe():
    s = schedule()
    base, warmup, minimum = 1e-3, 1e-6, 1e-5  # twice the configured rates, for twice 512 images
    assert s.at_step(0) == s.at_step(1) == warmup
    assert s.at_step(2) == pytest.approx(warmup + (base - warmup) / 2000, rel=1e-12)
    # the cosine runs over all 300 epochs, the 20 of warm-up included
    assert s.value(2000) == pytest.approx(minimum + (base - minimum) * (1 + math.cos(math.pi / 15)) / 2, rel=1e-12)
    assert s.value(15000) == pytest.approx((base + minimum) / 2, rel=1e-9)
    assert s.value(30000) == s.value(40000) == minimum


@pytest.mark.parametrize("kind", ("cosine", "linear", "step"))
def test_a_thousand_steps_of_the_paper_codes_run(kind):
    """300 ImageNet epochs of 1,251 updates: start, both sides of the warm-up's end, the last ones, and between."""
    with np.load(FIXTURES / "schedules.npz") as file:
        updates, rates = file["updates"], file[kind]
    config = load_config(None, TRAIN__LR_SCHEDULER__NAME=kind).train
    found = build_schedule(config, steps_per_epoch=1251, samples_per_step=1024)
    assert len(updates) >= 1000 and updates[-1] == 300 * 1251 - 1
    assert np.abs([found.at_step(int(k)) for k in updates] / rates - 1).max() < 1e-12


def test_linear_ends_at_a_hundredth():
    s = schedule(LR_SCHEDULER__NAME="linear")
    assert s.value(2000) == pytest.approx(1e-3) and s.value(30000) == pytest.approx(1e-5)
    assert s.value(16000) == pytest.approx(1e-3 * (1 - 0.99 / 2))


def test_steps_count_from_the_beginning():
    s = schedule(LR_SCHEDULER__NAME="step", LR_SCHEDULER__DECAY_EPOCHS=30, LR_SCHEDULER__DECAY_RATE=0.1)
    assert s.value(2999) == pytest.approx(1e-3) and s.value(3000) == pytest.approx(1e-4)
    assert s.value(6000) == pytest.approx(1e-5)


def test_no_warm_up():
    assert schedule(WARMUP_EPOCHS=0).at_step(0) == pytest.approx(1e-3)


def test_warm_up_in_steps_and_milestones():
    s = schedule(WARMUP_STEPS=500, LR_SCHEDULER__NAME="multistep", LR_SCHEDULER__MILESTONES=[27, 33])
    assert s.warmup_steps == 500 and s.value(250) == pytest.approx((1e-3 + 1e-6) / 2)
    assert s.value(500) == s.value(2699) == pytest.approx(1e-3)
    assert s.value(2700) == s.value(3299) == pytest.approx(1e-4) and s.value(3300) == pytest.approx(1e-5)
    assert schedule(BASE_BATCH_SIZE=1024).base_lr == pytest.approx(5e-4)
