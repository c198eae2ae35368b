"""A second task: regression on numbers, in batches of two widths. As a script it trains, or evaluates with --eval.

toy_task.py OUTPUT [--eval] [KEY VALUE]...
"""

import os
import signal
import sys

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from msg_ms.config import load_config
from msg_ms.data import EpochOrder, EvalPipeline, TrainPipeline
from msg_ms.engine.checkpoint_run import CheckpointRun
from msg_ms.engine.log import RunLog
from msg_ms.engine.runtime import start
from msg_ms.engine.task import Metric, Metrics, Task
from msg_ms.engine.trainer import Trainer


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


class Toy(Task):
    metrics, loss_names, sample_name = (Metric("error", "error", higher_is_better=False),), ("absolute",), "numbers"

    def __init__(self, config):
        self.config = config

    def build_model(self):
        return Line()

    def train_data(self, shard, workers):
        data = Train(EpochOrder(96, self.config.data.batch_size, self.config.seed, shard), ["x", "y"], workers)
        data.signatures = signatures(self.config.data.batch_size)
        return data

    def eval_data(self, shard, workers):
        data = Eval(21, 4, ["x", "y"], workers, shard)
        data.signatures = signatures(4, ((4,), np.float32))
        return data

    def loss_cell(self, model):
        return Loss(model)

    def evaluator(self, model):
        return Evaluator(model)


def main(output, *words):
    options = [word for word in words if word != "--eval"]
    settings = dict(
        OUTPUT=output,
        DEVICE_TARGET="CPU",
        PRINT_FREQ=int(os.environ.get("PRINT_FREQ", 1)),
        EVAL_MODE="--eval" in words,
        MODEL__NAME="toy",
    )
    settings |= dict(DATA__BATCH_SIZE=8, TRAIN__BASE_LR=3.0, TRAIN__WARMUP_EPOCHS=0, TRAIN__EPOCHS=4)
    runtime = start(load_config(None, options, **settings), Toy)
    model = runtime.task.build_model()
    log = RunLog(runtime.config.run_dir, runtime.ranks.rank)
    if runtime.config.eval_mode:
        log.info(CheckpointRun(runtime, model, log).evaluate())
    else:
        Trainer(runtime, model, log).fit()


if __name__ == "__main__":
    main(*sys.argv[1:])
