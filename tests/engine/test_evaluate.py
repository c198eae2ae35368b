"""Exact counting: every image once, also in an incomplete batch, against NumPy."""

import numpy as np
import pytest
from mindspore import Tensor, nn

from msg_ms.data.classification import ClassificationEvalBatch
from msg_ms.data.pipeline import pad_batch
from msg_ms.engine.evaluate import Evaluation
from msg_ms.engine.task import Metrics
from msg_ms.tasks.classification import ClassificationTask
from msg_ms.tasks.classification_evaluator import ClassificationEvaluator, ClassificationSums


class Logits(nn.Cell):
    """Returns its input as the logits."""

    def construct(self, x):
        return x


class Batches:
    """Logits and labels as evaluation data in batches of ``size``."""

    signatures = ()

    def __init__(self, logits, labels, size):
        self.logits, self.labels, self.size = logits, labels.astype(np.int32), size
        self.steps = -(-len(labels) // size)

    def batches(self):
        for i in range(0, len(self.labels), self.size):
            part = slice(i, i + self.size)
            index = np.arange(len(self.labels), dtype=np.int32)[part]
            yield ClassificationEvalBatch(*pad_batch((self.logits[part], self.labels[part], index), self.size))


def evaluate(logits, labels, size):
    model = Logits()
    evaluator = ClassificationEvaluator(model, logits.shape[1])
    return Evaluation(model, evaluator, Batches(logits, labels, size)).run()


@pytest.mark.parametrize("images", (1, 7, 8, 21))
def test_counts_match_numpy(images):
    draws = np.random.RandomState(images)
    logits = draws.randn(images, 9).astype(np.float32)
    labels = draws.randint(0, 9, images).astype(np.int32)
    result = evaluate(logits, labels, 8)
    ranks = (logits > logits[np.arange(images), labels][:, None]).sum(1)
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(images), labels]
    assert result.count == images
    assert result.values["top1"] == pytest.approx(100 * (ranks < 1).mean())
    assert result.values["top5"] == pytest.approx(100 * (ranks < 5).mean())
    assert result.values["loss"] == pytest.approx(losses.mean(), rel=1e-5)


def test_fewer_than_five_classes():
    logits = np.eye(3, dtype=np.float32)
    result = evaluate(logits, np.array([0, 0, 2]), 2)
    assert (result.values["top1"], result.values["top5"]) == (pytest.approx(200 / 3), 100)


def test_a_model_that_gives_nan_is_not_right():
    logits = np.full((4, 9), np.nan, np.float32)
    result = evaluate(logits, np.array([8, 7, 6, 5]), 4)
    assert np.isnan(result.values["loss"]) and result.values["top1"] < 100


def test_padding_counts_nothing_even_where_it_is_not_finite():
    logits, labels = Tensor(np.array([[0, 1], [np.inf, 0]], np.float32)), Tensor(np.array([1, 0], np.int32))
    valid = Tensor(np.array([1, 0], np.float32))
    loss, top1, top5 = (float(x.asnumpy()) for x in ClassificationSums(Logits(), 2)(logits, labels, labels, valid))
    assert np.isfinite(loss) and (top1, top5) == (1, 1)


def test_equal_accuracy_is_decided_by_the_loss():
    def metrics(top1, loss):
        return Metrics(ClassificationTask.metrics, {"top1": top1, "top5": 100.0, "loss": loss}, 10)

    assert metrics(90.0, 0.3).rank < metrics(90.0, 0.2).rank < metrics(91.0, 0.9).rank
    assert str(metrics(90.0, 0.25)) == "top-1 90.00%, top-5 100.00%, loss 0.2500 on 10 images"
