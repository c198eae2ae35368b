"""Training losses."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops


class SmoothedCrossEntropy(nn.Cell):
    """Mean cross entropy with label smoothing, as in timm.

    Args:
        smoothing: Share s of the target that is spread evenly over all classes; the label keeps 1 - s.

    Inputs:
        - **logits**: (B, K), any float type; the loss is computed in float32.
        - **labels**: Either class indices, int32 (B,), or soft labels, float32 (B, K). Soft labels are used unchanged
          (mixup has smoothed them already).

    Outputs:
        The mean loss over the batch, a float32 scalar.
    """

    def __init__(self, smoothing: float = 0.0):
        super().__init__()
        self.smoothing = smoothing

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss; shapes and types as in the class."""
        log_probabilities = ops.log_softmax(logits.astype(ms.float32), -1)
        if labels.ndim == 2:
            return -(labels * log_probabilities).sum(-1).mean()
        chosen = ops.gather_elements(log_probabilities, 1, labels.reshape(-1, 1)).reshape(-1)
        return -((1.0 - self.smoothing) * chosen + self.smoothing * log_probabilities.mean(-1)).mean()
