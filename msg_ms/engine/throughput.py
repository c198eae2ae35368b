"""Inference speed on one batch, counted as the paper's code does: 50 passes to warm up, 30 timed."""

from __future__ import annotations

import time

import mindspore as ms
import numpy as np

from ..models.inference import optimize_for_inference
from ..models.msg_transformer import MSGTransformer

WARM_UP, TIMED = 50, 30


def measure_throughput(model: MSGTransformer, images: np.ndarray) -> str:
    """A line with the images per second for a batch (B, C, H, W); the model serves inference alone from then on."""
    batch = ms.Tensor(images)
    optimize_for_inference(model)

    def run(times: int) -> float:
        begin = time.perf_counter()
        for _ in range(times):
            result = model(batch)
        result.asnumpy()  # waits for the device
        return time.perf_counter() - begin

    run(WARM_UP)
    return f"batch size {len(images)}: {TIMED * len(images) / run(TIMED):.1f} images/s over {TIMED} passes"
