"""Count what a step costs beside its graph: count_reads.py TRAIN_PY ARGUMENT...

Each rank writes counts_rank<rank>.json for its last epoch: reads of device values and those among them of the newest
step, gathers, bytes to the device, and steps.
"""

import json
import runpy
import sys
from pathlib import Path

from mindspore import Tensor

from msg_ms.engine import ranks, train_step, trainer

counts = dict.fromkeys(("reads", "waits", "gathers", "bytes", "steps"), 0)
newest = []
asnumpy, run_steps = Tensor.asnumpy, trainer.Trainer.run_steps
launch = train_step.TrainStep.launch


def counted_asnumpy(self):
    counts["reads"] += 1
    counts["waits"] += any(self is value for value in newest)
    return asnumpy(self)


def counted_tensor(value, *args):
    tensor = Tensor(value, *args)
    counts["bytes"] += tensor.nbytes
    return tensor


def counted_launch(self, *args):
    pending = launch(self, *args)
    newest[:] = [pending.values]
    counts["steps"] += 1
    return pending


def counted_steps(self, *args):
    """Count within the steps only, not in evaluation and checkpoints."""
    for key in counts:
        counts[key] = 0
    newest.clear()
    Tensor.asnumpy = counted_asnumpy
    gather_cell = ranks._gather

    def counted_gather():
        counts["gathers"] += 1
        return gather_cell()

    ranks._gather = counted_gather
    train_step.Tensor = ranks.Tensor = counted_tensor
    try:
        return run_steps(self, *args)
    finally:
        Tensor.asnumpy, ranks._gather = asnumpy, gather_cell
        train_step.Tensor = ranks.Tensor = Tensor
        Path(f"counts_rank{self.ranks.rank}.json").write_text(json.dumps(counts), encoding="utf-8")


train_step.TrainStep.launch = counted_launch
trainer.Trainer.run_steps = counted_steps
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
