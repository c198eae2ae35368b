"""Exact counting: every image once, also in an incomplete batch, against NumPy."""

import numpy as np
import pytest
from mindspore import nn

from msg_ms.engine.evaluate import EvalStep, evaluate


class Logits(nn.Cell):
    """Takes its input for the logits."""

    def construct(self, x):
        return x


def batches(logits, labels, size):
    for i in range(0, len(labels), size):
        yield logits[i : i + size], labels[i : i + size]


@pytest.mark.parametrize("images", (1, 7, 8, 21))
def test_counts_match_numpy(images):
    draws = np.random.RandomState(images)
    logits = draws.randn(images, 9).astype(np.float32)
    labels = draws.randint(0, 9, images).astype(np.int32)
    result = evaluate(EvalStep(Logits(), 9), batches(logits, labels, 8), 8)
    ranks = (logits > logits[np.arange(images), labels][:, None]).sum(1)
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(images), labels]
    assert result.images == images
    assert result.top1 == pytest.approx(100 * (ranks < 1).mean())
    assert result.top5 == pytest.approx(100 * (ranks < 5).mean())
    assert result.loss == pytest.approx(losses.mean(), rel=1e-5)


def test_fewer_than_five_classes():
    logits = np.eye(3, dtype=np.float32)
    result = evaluate(EvalStep(Logits(), 3), batches(logits, np.array([0, 0, 2]), 2), 2)
    assert (result.top1, result.top5) == (pytest.approx(200 / 3), 100)


def test_a_model_that_gives_nan_is_not_right():
    logits = np.full((4, 9), np.nan, np.float32)
    result = evaluate(EvalStep(Logits(), 9), batches(logits, np.array([8, 7, 6, 5]), 4), 4)
    assert np.isnan(result.loss) and result.top1 < 100


def test_copies_that_fill_a_batch_weigh_nothing_even_where_not_finite():
    logits = np.array([[0, 1], [np.inf, 0]], np.float32)
    result = evaluate(EvalStep(Logits(), 2), [(logits[:1], np.array([1]))], 2)
    assert result.top1 == 100 and np.isfinite(result.loss)
