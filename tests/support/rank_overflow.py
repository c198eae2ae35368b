"""One of the ranks meets an Inf in its labels: run by msrun, prints what each rank saw of it as JSON."""

import json
import os

import mindspore as ms
import numpy as np
from mindspore.communication import get_group_size, get_rank, init

from msg_ms import MSGTransformer
from msg_ms.config import AmpConfig, load_config
from msg_ms.engine.loss_scale import build_scaler
from msg_ms.engine.optim import build_optimizer
from msg_ms.engine.ranks import GradientSum
from msg_ms.engine.train_step import LossAndGradients, OptimizerStep, TrainStep
from msg_ms.models.precision import set_precision
from msg_ms.tasks.classification import ClassificationLoss

ms.set_context(mode=ms.GRAPH_MODE)
ms.set_device("CPU")
init()
ms.set_seed(1)
arguments = json.loads(os.environ["MODEL"])
model = MSGTransformer(**arguments)
set_precision(model, "O1")
optimizer = build_optimizer(load_config(None).train, model.trainable_params())
scaler = build_scaler("O1", AmpConfig(loss_scale=8.0))
gradients = LossAndGradients(ClassificationLoss(model), optimizer.targets, scaler)
step = TrainStep(
    gradients, OptimizerStep(optimizer, 1.0, scaler, None, get_group_size(), GradientSum(optimizer.targets, "CPU"))
)
draws = np.random.RandomState(get_rank())  # every rank has images of its own


def update(spoilt: bool) -> dict:
    labels = np.eye(3, dtype=np.float32)[draws.randint(0, 3, 2)]
    if spoilt:
        labels[0, 0] = np.inf
    batch = (draws.randn(2, 3, 32, 32).astype(np.float32), labels, np.zeros((2, 2, 2), np.float32))
    _, norm = step.run([batch], 1e-3)
    weights = np.concatenate([p.asnumpy().ravel() for p in optimizer.targets])
    return dict(
        finite=bool(np.isfinite(norm)), scale=float(scaler.scale_value.asnumpy()), weights=weights.tobytes().hex()
    )


seen = [update(False), update(get_rank() == 1), update(False)]
with open(f"rank{get_rank()}.json", "w", encoding="utf-8") as file:  # noqa: PTH123
    json.dump(seen, file)
