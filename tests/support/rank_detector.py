"""Ten updates of a tiny detector on this rank's part of the batches: run by msrun or alone; rank 0 writes the weights.

rank_detector.py OUTPUT OPTIMIZER PARTS

A batch consists of PARTS parts, which the ranks share: a rank accumulates the gradients of several parts. The losses
are means over the samples of a part, as on any number of devices in mmdetection. So only runs with the same parts
have the same losses. Batch normalisation uses fixed statistics.
"""

import sys

import numpy as np
from mindspore import Tensor

from msg_ms.boxes.batches import DetectionBatch
from msg_ms.config import load_config
from msg_ms.data.pipeline import arrays_of
from msg_ms.engine.device import setup_device
from msg_ms.engine.optim import build_optimizer
from msg_ms.engine.ranks import GradientSum, parameter_bytes
from msg_ms.engine.train_step import LossAndGradients, OptimizerStep, build_step
from msg_ms.models.detection.conv import ConvModule
from msg_ms.models.detection.decay import has_detection_decay
from msg_ms.models.detection.detection_loss import LOSS_NAMES, DetectionLoss
from support.tiny_detector import tiny_batch, tiny_detector

UPDATES, IMAGES = 10, 4
RATES = {"sgd": 0.002, "adamw": 1e-5}


def main(output: str, name: str, parts: int) -> None:
    _, ranks = setup_device("CPU", 0)
    model = tiny_detector(drop_path_rate=0.0)
    draws = np.random.RandomState(0)
    for parameter in model.get_parameters():  # every process has the same weights
        if not parameter.name.endswith(("gamma", "beta", "moving_mean", "moving_variance")):
            parameter.set_data(Tensor(0.1 * draws.standard_normal(parameter.shape).astype(np.float32)))
    optimizer = build_optimizer(
        load_config(None, TRAIN__OPTIMIZER__NAME=name).train, model.trainable_params(), has_detection_decay
    )
    gradients = LossAndGradients(DetectionLoss(model), optimizer.targets)
    for _, cell in model.cells_and_names():
        if isinstance(cell, ConvModule) and cell.bn is not None:
            cell.set_train(False)
    accumulation = parts // ranks.world_size
    gradient_sum = GradientSum(optimizer.targets, "CPU") if ranks.world_size > 1 else None
    optimizer_step = OptimizerStep(optimizer, 0.0, None, None, ranks.world_size, gradient_sum)
    step = build_step(gradients, optimizer_step, accumulation, 1 + len(LOSS_NAMES))
    *arrays, noise = arrays_of(tiny_batch(model, IMAGES))
    own = range(ranks.rank * accumulation, (ranks.rank + 1) * accumulation)
    losses = []
    for _ in range(UPDATES):
        arrays[0] = draws.standard_normal(arrays[0].shape).astype(np.float32)
        whole = [np.split(array, parts) for array in arrays] + [np.split(noise, parts, 2)]
        batches = [DetectionBatch.of([np.ascontiguousarray(pieces[i]) for pieces in whole]) for i in own]
        losses.append(step.run(batches, RATES[name])[0])
        ranks.assert_same_on_all_ranks("the weights", parameter_bytes(optimizer.targets), "")
    if ranks.is_main:
        np.savez(output, losses=np.array(losses), **{p.name: p.asnumpy() for p in model.get_parameters()})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
