"""Ten updates on this rank's part of the batches: run by msrun or alone; the first rank writes the weights down.

rank_parallel.py OUTPUT OPTIMIZER ACCUMULATION
"""

import sys

import numpy as np

from msg_ms.config import load_config
from msg_ms.engine.device import setup_device
from msg_ms.engine.optim import build_optimizer
from msg_ms.engine.ranks import GradientSum, parameter_bytes
from msg_ms.engine.train_step import LossAndGradients, OptimizerStep, build_step
from msg_ms.tasks.classification import ClassificationLoss
from support.reference import FIXTURES, Case

UPDATES, IMAGES = 10, 8
# Adam turns the rounding of tiny gradients into parts of a rate; the recipe's for 8 images is 8e-6.
RATES = {"sgd": 0.02, "adamw": 2e-5}


def main(output: str, name: str, accumulation: int) -> None:
    _, ranks = setup_device("CPU", 0)
    model = Case(FIXTURES / "options_win4_64.npz").model(drop_path_rate=0.0)
    optimizer = build_optimizer(load_config(None, TRAIN__OPTIMIZER__NAME=name).train, model.trainable_params())
    gradients = LossAndGradients(ClassificationLoss(model, 0.1), optimizer.targets)
    world_size = ranks.world_size
    gradient_sum = GradientSum(optimizer.targets, "CPU") if world_size > 1 else None
    optimizer_step = OptimizerStep(optimizer, 1.0, None, None, world_size, gradient_sum)
    step = build_step(gradients, optimizer_step, accumulation)
    data = np.random.RandomState(0)
    part = IMAGES // (world_size * accumulation)
    for _ in range(UPDATES):
        images = data.randn(IMAGES, 1, 64, 64).astype(np.float32).reshape(world_size, accumulation, part, 1, 64, 64)
        labels = data.randint(0, 7, IMAGES).astype(np.int32).reshape(world_size, accumulation, part)
        draws = np.zeros((4, 2, part), np.float32)
        step.run([(images[ranks.rank, i], labels[ranks.rank, i], draws) for i in range(accumulation)], RATES[name])
        ranks.assert_same_on_all_ranks("the weights", parameter_bytes(optimizer.targets), "")
    if ranks.is_main:
        np.savez(output, **{p.name: p.asnumpy() for p in model.get_parameters()})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
