"""300 steps of learning, side by side with the paper's own PyTorch code: same weights, batches and recipe."""

import numpy as np
from support import learning
from support.reference import FIXTURES, set_parameters

from msg_ms import MSGTransformer
from msg_ms.config import load_config
from msg_ms.convert import export_state_dict
from msg_ms.engine.optim import build_optimizer
from msg_ms.engine.train_step import LossAndGradients, OptimizerStep, TrainStep
from msg_ms.tasks.classification import ClassificationLoss


def test_the_loss_follows_the_papers_code():
    with np.load(FIXTURES / "learning_curve.npz") as file:
        wanted, names = file["losses"], set(file["parameters"])
    model = MSGTransformer(**learning.MODEL)
    own = {p.name: np.empty(p.shape, np.bool_) for p in model.get_parameters()}
    shapes = {name: value.shape for name, value in export_state_dict(own, buffers=False).items()}
    assert shapes.keys() == names
    set_parameters(model, learning.initial_weights(shapes))
    config = load_config(None, TRAIN__WEIGHT_DECAY=learning.WEIGHT_DECAY).train
    optimizer = build_optimizer(config, model.trainable_params())
    gradients = LossAndGradients(ClassificationLoss(model, learning.SMOOTHING), optimizer.targets)
    step = TrainStep(gradients, OptimizerStep(optimizer, learning.CLIP))
    draws = np.zeros((3, 2, learning.BATCH), np.float32)
    losses = []
    for k, (images, labels) in enumerate(learning.batches()):
        losses.append(step.run([(images, labels.astype(np.int32), draws)], learning.rate_at(k))[0][0])
    assert losses[0] > 2.2 and losses[-1] < 1.0  # it learns
    every_50th = slice(49, None, 50)
    error = np.abs(np.array(losses) / wanted - 1)
    print("largest relative difference at every 50th step:", error[every_50th].max(), "at any:", error.max())
    assert error[every_50th].max() < 0.01
