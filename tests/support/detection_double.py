"""The detector's learning comparison in double precision: python tests/support/detection_double.py INPUTS LOSSES.

INPUTS is the file of ``support.detection_learning``. LOSSES is that of ``benchmarks/torch_detector_training.py
--double``, with the same initial weights in it. In single precision rounding soon changes an RoI, as NMS, assignment
and sampling are discontinuous; here it does not. So the losses of the first 45 steps agree to 5e-7, and of
50 to LIMIT. At step 56 a pixel of a mask target is in the middle of a bin, and either side may round it; the difference
grows to 1% at step 71.

The package has no double precision. A copy of its sources with every ``float32`` of the model replaced serves here,
with the composed operators. NMS alone compares boxes in single precision. AdamW is computed in NumPy, as MindSpore has
no Adam in double precision on CPU. MindSpore's memory grows by half a gigabyte with every step here, so a process
trains 25 steps and hands the weights to the next one. A step needs ten seconds.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
ALL_STEPS, STEPS, LIMIT, STATE = 50, 25, 1e-4, "state.npz"  # steps per process, largest relative difference
NMS = "self.composed_nms(ops.cat((boxes[i], scores), 1))"


def copy_in_double_precision(folder: Path) -> None:
    """Copy the package and this folder, with double precision in operators, models and boxes."""
    shutil.copytree(ROOT / "msg_ms", folder / "msg_ms")
    shutil.copytree(ROOT / "tests" / "support", folder / "support")
    for part in ("models", "ops", "boxes"):
        for file in (folder / "msg_ms" / part).rglob("*.py"):
            file.write_text(re.sub(r"\b(ms|np)\.float32\b", r"\1.float64", file.read_text("utf-8")), encoding="utf-8")
    nms = folder / "msg_ms" / "ops" / "nms.py"
    text = nms.read_text("utf-8")
    assert NMS in text, "this script must follow ops/nms.py"
    nms.write_text(text.replace(NMS, NMS.replace(", 1))", ", 1).astype(ms.float32))")), encoding="utf-8")


def compare(inputs: Path, losses: Path, first: int, folder: Path) -> None:
    """Train from step ``first``, print each step's largest relative difference, and write the state to ``folder``."""
    import mindspore as ms
    from mindspore import ParameterTuple, Tensor

    from msg_ms.boxes.batches import DetectionBatch
    from msg_ms.checkpoint import parameters_by_name
    from msg_ms.convert import convert_state_dict
    from msg_ms.convert.detection_rules import DETECTION_RULES
    from msg_ms.engine.train_step import LossAndGradients, arguments
    from msg_ms.models.detection.decay import has_detection_decay
    from msg_ms.models.detection.detection_loss import LOSS_NAMES, DetectionLoss
    from msg_ms.ops import set_backend
    from support import detection_learning as learning

    set_backend("composed")
    ms.set_context(mode=ms.GRAPH_MODE)
    model = learning.detector()
    with np.load(losses) as file:
        expected = file["losses"]
        weights = {name[6:]: file[name] for name in file.files if name.startswith("state/")}
    state = convert_state_dict(weights, rules=DETECTION_RULES)
    for name, parameter in parameters_by_name(model.get_parameters()).items():
        parameter.set_dtype(ms.float64)
        parameter.set_data(Tensor(state[name].astype(np.float64)))
    parameters = ParameterTuple(model.trainable_params())
    loss = DetectionLoss(model)
    loss.set_train()
    step, adamw = LossAndGradients(loss, parameters), AdamW(parameters, has_detection_decay)
    if first:
        adamw.load(folder / STATE, model)
    last = first + STEPS
    with np.load(inputs) as file:
        columns = [name.split("/")[2] for name in file.files if name.startswith("batch/0/")]
        batches = [[double(file[f"batch/{k}/{name}"]) for name in columns] for k in range(first, last)]
    for k, batch in enumerate(batches, first):
        values, gradients = step(*arguments(DetectionBatch.of(batch)))
        adamw.update([gradient.asnumpy() for gradient in gradients], learning.rate_at(k))
        found = np.array([value.asnumpy() for value in values[1:]], np.float64)
        errors = np.abs(found - expected[k]) / expected[k]
        name = LOSS_NAMES[errors.argmax()]
        print(f"step {k + 1}: total {found.sum():.6f}, largest difference {errors.max():.1e} ({name})", flush=True)
        if errors.max() > LIMIT:
            os._exit(1)
    adamw.save(folder / STATE, model)
    os._exit(0)  # MindSpore's cells complain at the end of a process otherwise


def double(values: np.ndarray) -> np.ndarray:
    """Return the values in double precision if they are in single precision."""
    return values.astype(np.float64) if values.dtype == np.float32 else values


class AdamW:
    """AdamW as in PyTorch."""

    def __init__(self, parameters, has_decay):
        from support import detection_learning as learning

        self.parameters, self.steps, self.settings = parameters, 0, learning
        self.decay = [learning.WEIGHT_DECAY if has_decay(parameter) else 0.0 for parameter in parameters]
        self.first, self.second = ([np.zeros(p.shape) for p in parameters] for _ in range(2))

    def update(self, gradients: list[np.ndarray], lr: float) -> None:
        """Update the parameters."""
        from mindspore import Tensor

        self.steps += 1
        beta1, beta2 = self.settings.BETAS
        for i, (parameter, gradient) in enumerate(zip(self.parameters, gradients, strict=True)):
            self.first[i] = beta1 * self.first[i] + (1 - beta1) * gradient
            self.second[i] = beta2 * self.second[i] + (1 - beta2) * gradient**2
            size = np.sqrt(self.second[i] / (1 - beta2**self.steps)) + self.settings.EPSILON
            values = parameter.asnumpy() * (1 - lr * self.decay[i])
            values -= lr / (1 - beta1**self.steps) * self.first[i] / size
            parameter.set_data(Tensor(values))

    def save(self, path: Path, model) -> None:
        """Write the number of steps, the moments, and all parameters with the statistics of the normalisations."""
        arrays = {f"model/{p.name}": p.asnumpy() for p in model.get_parameters()}
        for i, moments in enumerate(zip(self.first, self.second, strict=True)):
            arrays |= {f"{name}/{i}": moment for name, moment in zip(("first", "second"), moments, strict=True)}
        np.savez(path, steps=self.steps, **arrays)

    def load(self, path: Path, model) -> None:
        """Read what ``save`` wrote."""
        from mindspore import Tensor

        with np.load(path) as file:
            self.steps = int(file["steps"])
            for i in range(len(self.first)):
                self.first[i], self.second[i] = file[f"first/{i}"], file[f"second/{i}"]
            for parameter in model.get_parameters():
                parameter.set_data(Tensor(file[f"model/{parameter.name}"]))


def main(inputs: Path, losses: Path) -> None:
    """Train in several processes."""
    with tempfile.TemporaryDirectory() as folder:
        copy_in_double_precision(Path(folder))
        for first in range(0, ALL_STEPS, STEPS):
            line = [sys.executable, __file__, str(inputs), str(losses), str(first), folder]
            if subprocess.run(line, env={**os.environ, "PYTHONPATH": folder}).returncode:
                sys.exit(f"not all losses are within {LIMIT} of PyTorch's")
    print(f"all losses of {ALL_STEPS} steps are within {LIMIT} of PyTorch's")


if __name__ == "__main__":
    files = [Path(argument).resolve() for argument in sys.argv[1:3]]
    if len(sys.argv) > 3:
        sys.path[0] = sys.argv[4]
        compare(*files, int(sys.argv[3]), Path(sys.argv[4]))
    else:
        main(*files)
