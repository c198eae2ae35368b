"""Training losses."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops


class SmoothedCrossEntropy(nn.Cell):
    """Mean cross entropy with label smoothing as timm's: the target keeps 1 - s, and s spreads over all classes.

    ``logits`` (B, K); ``labels`` either int32 (B,) or soft (B, K), which are taken as they are (already smoothed).
    """

    def __init__(self, smoothing: float = 0.0):
        super().__init__()
        self.smoothing = smoothing

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        log_probabilities = ops.log_softmax(logits.astype(ms.float32), -1)
        if labels.ndim == 2:
            return -(labels * log_probabilities).sum(-1).mean()
        chosen = ops.gather_elements(log_probabilities, 1, labels.reshape(-1, 1)).reshape(-1)
        return -((1.0 - self.smoothing) * chosen + self.smoothing * log_probabilities.mean(-1)).mean()
