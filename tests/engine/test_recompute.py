"""TRAIN.USE_CHECKPOINT: the same gradients from blocks that are computed again in the backward pass."""

import numpy as np
from mindspore import Tensor
from support.reference import FIXTURES, Case

from msg_ms.data.pipeline import drop_path_noise
from msg_ms.engine.train_step import LossAndGradients
from msg_ms.tasks.classification import ClassificationLoss


def test_gradients_are_the_same():
    case = Case(FIXTURES / "options_win4_64.npz")
    images, labels = map(Tensor, case.inputs())
    draws = Tensor(drop_path_noise(4, 2, 0, 0))
    results = []
    for again in (False, True):
        model = case.model(drop_path_rate=0.3)
        if again:
            model.set_grad_checkpointing()
        gradients = LossAndGradients(ClassificationLoss(model, 0.1), model.trainable_params())
        (loss,), found = gradients(images, labels, draws)
        results.append([loss.asnumpy(), *(gradient.asnumpy() for gradient in found)])
    assert all((one == other).all() for one, other in zip(*results, strict=True))
    assert max(np.abs(value).max() for value in results[0]) > 0.01
