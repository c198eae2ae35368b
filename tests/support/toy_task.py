"""A task of another package: regression on numbers, in batches of two widths. All of it is in this file.

``tests/toy_task-1.0.dist-info`` holds what pip would write for the package: the entry point that names the class. So
the task runs in every command where ``tests`` is on the path, with ``CONFIG``.
"""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from msg_ms import UserError
from msg_ms.checkpoint import load_for_inference
from msg_ms.data import EpochOrder, EvalPipeline, TrainPipeline
from msg_ms.deploy import Exported
from msg_ms.engine.predictor import Unreadable
from msg_ms.engine.task import Metric, Metrics, Task
from msg_ms.errors import refuse_options

CONFIG = """
TASK: toy
MODEL: {NAME: toy}
DATA: {BATCH_SIZE: 8}
TRAIN: {EPOCHS: 4, WARMUP_EPOCHS: 0, BASE_LR: 3.0}
PRINT_FREQ: 1
DEVICE_TARGET: CPU
"""


def numbers(indices, width):
    """Return x (n, width), each row one number, and y = 3 x + 1 (n,)."""
    x = (np.asarray(indices, np.float32) % 17) / 17
    return np.repeat(x[:, None], width, 1), 3 * x + 1


def signatures(batch, *more):
    """Return the signatures of batches of width 3 and 5."""
    return [(((batch, width), np.float32), ((batch,), np.float32), *more) for width in (3, 5)]


class Train(TrainPipeline):
    def build_batch(self, number, epoch, indices):
        return numbers(indices, 3 if number % 2 else 5)


class Eval(EvalPipeline):
    def build_batch(self, indices):
        return numbers(indices, 3 if indices[0] % 3 else 5)


class Line(nn.Cell):
    def __init__(self):
        super().__init__()
        self.slope, self.offset = (Parameter(Tensor(np.zeros(1, np.float32)), name=n) for n in ("slope", "offset"))

    def construct(self, x):
        return self.slope * x.mean(1) + self.offset


class Loss(nn.Cell):
    def __init__(self, model):
        super().__init__(auto_prefix=False)
        self.model = model

    def construct(self, x, y):
        error = self.model(x) - y
        return ops.square(error).mean(), ops.abs(error).mean()


class Errors(nn.Cell):
    def __init__(self, model):
        super().__init__(auto_prefix=False)
        self.model = model

    def construct(self, x, y, valid):
        return ((ops.abs(self.model(x) - y) * valid).sum(),)


class Evaluator:
    def __init__(self, model):
        self.network = Errors(model)

    def reset(self):
        self.total, self.count = 0.0, 0

    def update(self, batch, outputs):
        if os.environ.get("STOP_IN_EVALUATION"):
            os.kill(os.getpid(), signal.SIGTERM)
        self.total, self.count = self.total + float(outputs[0].asnumpy()), self.count + int(batch[-1].sum())

    def compute(self, ranks):
        total, count = ranks.sum([self.total, self.count])
        error = None if os.environ.get("UNDEFINED") else float(total / count)
        return Metrics(Toy.metrics, {"error": error}, int(count), "numbers", "there is nothing to compare")


@dataclass
class Result:
    file: Path
    x: float
    y: float


class Predictor:
    """Predicts y for files that hold x."""

    warnings, tile = (), 160

    def __init__(self, model):
        self.model = model

    def predict(self, files):
        for file in files:
            try:
                x = float(file.read_text("utf-8"))
            except (OSError, ValueError):
                yield Unreadable(file, "holds no number")
                continue
            yield Result(file, x, float(self.model(Tensor([[x]], ms.float32)).asnumpy()[0]))

    def record(self, result):
        return {"x": result.x, "y": result.y}

    def text(self, result):
        return f"{result.x:g} -> {result.y:.3f}"

    def picture(self, result):
        return np.full((8, 8, 3), 255 * (result.y > 2), np.uint8), self.text(result)


class Exporter:
    """Writes a MindIR for batches of width 3."""

    def export(self, checkpoint, options, log):
        refuse_options(options, "dynamic_batch", "softmax", "img_size", reason="is not for numbers")
        if options.output.suffix != ".mindir":
            raise UserError(f"--output {options.output}: numbers have no such format")
        model, x = Line().set_train(False), Tensor(numbers(range(options.batch_size), 3)[0])
        for line in load_for_inference(model, checkpoint)[0]:
            log(line)
        ms.export(model, x, file_name=str(options.output), file_format="MINDIR")
        found = nn.GraphCell(ms.load(str(options.output)))(x).asnumpy()
        difference = float(np.abs(found - model(x).asnumpy()).max())
        return Exported(f"x, float32 {options.batch_size},3", f"y, float32 {options.batch_size}", f"{difference:.0e}")


class Toy(Task):
    metrics, loss_names, sample_name = (Metric("error", "error", higher_is_better=False),), ("absolute",), "numbers"

    def __init__(self, config):
        self.config = config

    def build_model(self):
        return Line()

    def train_data(self, shard, workers):
        data = Train(EpochOrder(96, self.config.data.batch_size, self.config.seed, shard), workers)
        data.signatures = signatures(self.config.data.batch_size)
        return data

    def eval_data(self, shard, workers):
        data = Eval(21, 4, workers, shard)
        data.signatures = signatures(4, ((4,), np.float32))
        return data

    def loss_cell(self, model):
        return Loss(model)

    def evaluator(self, model):
        return Evaluator(model)

    def predictor(self, model, metadata, options):
        refuse_options(options, "classes", "top_k", "score_thr", "show_messages", reason="is not for numbers")
        return Predictor(model)

    def exporter(self):
        return Exporter()
