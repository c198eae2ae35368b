"""Inference speed on one batch, measured as the paper's code does: 50 passes to warm up, 30 timed."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from mindspore import Tensor, nn

WARM_UP, TIMED = 50, 30


def measure_throughput(model: nn.Cell, inputs: Sequence[np.ndarray], unit: str) -> str:
    """Return a line with the samples per second.

    Args:
        model: The model in evaluation mode.
        inputs: Its inputs, each with a first axis of batch size.
        unit: Name of the samples, in the plural.
    """
    batch = [Tensor(array) for array in inputs]

    def run(passes: int) -> float:
        begin = time.perf_counter()
        for _ in range(passes):
            result = model(*batch)
        (result[0] if isinstance(result, tuple) else result).asnumpy()  # waits for the device
        return time.perf_counter() - begin

    run(WARM_UP)
    count = len(inputs[0])
    return f"batch size {count}: {TIMED * count / run(TIMED):.1f} {unit}/s over {TIMED} passes"
