"""Compile a graph for a device and print the result: python select_kernels.py GPU|Ascend O0|O2|detector...|CONTROL.

The training step is the package's own (forward, backward, clipping, AdamW, loss scale, EMA) with the operators for the
device; those of ``O1_composed`` are without fused operators. At O2 the images are uint8, to be normalised, erased and
mixed on the device.
``detector`` is the detector's inference, and ``detector_O0`` and ``detector_O2`` are its losses with their gradients.
The controls are graphs with a known result; they show that the selection can refuse.
"""

import os
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn, ops

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.reference import SMALL
from support.tiny_detector import HEIGHT, WIDTH, tiny_batch, tiny_detector

from msg_ms import MSGTransformer
from msg_ms.config import AmpConfig, load_config
from msg_ms.data.pixels.device_collate import MIXING, SIDES
from msg_ms.engine.ema import WeightEMA
from msg_ms.engine.loss_scale import build_scaler
from msg_ms.engine.optim import build_optimizer
from msg_ms.engine.train_step import LossAndGradients, OptimizerStep, TrainStep, arguments
from msg_ms.models.detection.detection_loss import DetectionLoss
from msg_ms.models.precision import set_precision
from msg_ms.ops import set_backend
from msg_ms.tasks.classification import ClassificationLoss

target, name = sys.argv[1:]
ms.set_device(target)
ms.set_context(mode=ms.GRAPH_MODE)


def training_step(level: str) -> tuple[nn.Cell, tuple]:
    model = MSGTransformer(**SMALL)
    set_precision(model, level)
    optimizer = build_optimizer(load_config(None).train, model.trainable_params())
    scaler = build_scaler(level, AmpConfig())
    average = WeightEMA(optimizer.targets, 0.9)
    gradients = LossAndGradients(ClassificationLoss(model, 0.1), optimizer.targets, scaler)
    step = TrainStep(gradients, OptimizerStep(optimizer, 5.0, scaler, average))
    batch = [np.zeros((2, 3, 32, 32), np.float32), np.zeros(2, np.int32), np.zeros((2, 2, 2), np.float32)]
    if level == "O2":
        batch[0] = np.zeros((2, 32, 32, 3), np.uint8)
        batch += [np.zeros(MIXING, np.float32), np.zeros((2, 2, SIDES + 3), np.float32)]
    return step, (ms.Tensor([0.1, 0.0], ms.float32), *map(ms.Tensor, batch))


def detector_graph(level: str) -> tuple[nn.Cell, tuple]:
    """Return the graph of inference if ``level`` is empty, else that of the losses and gradients."""
    model = tiny_detector()
    if not level:
        sizes = np.float32([[HEIGHT, WIDTH]]), np.ones((1, 4), np.float32)
        return model.set_train(False), arguments((np.zeros((1, 3, HEIGHT, WIDTH), np.float32), *sizes))
    set_precision(model, level)
    gradients = LossAndGradients(DetectionLoss(model), ms.ParameterTuple(model.trainable_params()))
    return gradients, arguments(tiny_batch(model))


class Control(nn.Cell):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def construct(self, *x):
        return self.function(*x)


def control(name: str) -> tuple[nn.Cell, tuple]:
    function, dtype = {
        "erf_of_int8": (ops.Erf(), ms.int8),
        "bfloat16_product": (ops.MatMul(), ms.bfloat16),
        "eigenvalues": (ops.Eig(), ms.float32),
        "softmax": (ops.Softmax(), ms.float32),
    }[name]
    return Control(function), (ms.Tensor(np.ones((4, 4)), dtype),) * (2 if name == "bfloat16_product" else 1)


if name.startswith("detector"):
    graph, inputs = detector_graph(name.partition("_")[2])
else:
    level, _, backend = name.partition("_")
    if backend == "composed":
        set_backend(backend)
    graph, inputs = training_step(level) if level in ("O0", "O1", "O2") else control(name)
try:
    graph.compile(*inputs)
    print("compiled", flush=True)
except (RuntimeError, TypeError) as error:
    print("refused:", " ".join(str(error).split())[:300], flush=True)
# MindSpore's shutdown sometimes waits for ever: a thread of its Ascend plugin misses the wake-up.
os._exit(0)
