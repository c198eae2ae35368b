"""The one evaluation loop: top-1, top-5 and loss, every image counted exactly once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from .compile_cache import CachedCell
from .ranks import SINGLE_PROCESS, Ranks


@dataclass(frozen=True)
class Evaluation:
    """Over ``images`` images: accuracies in percent and the mean cross entropy without smoothing."""

    images: int
    top1: float
    top5: float
    loss: float

    def __str__(self) -> str:
        return f"top-1 {self.top1:.2f}%, top-5 {self.top5:.2f}%, loss {self.loss:.4f} on {self.images} images"


class EvalStep(CachedCell):
    """Sums over a batch: (cross entropy, images right at first guess, right among the first five).

    ``weights`` (B,) is 1 for an image that counts and 0 for one that fills the batch up.
    """

    def __init__(self, model: nn.Cell, num_classes: int):
        super().__init__(auto_prefix=False)
        self.model = model
        self.guesses = min(5, num_classes)

    def construct(self, images: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = self.model(images)
        log_probabilities = ops.log_softmax(logits, -1)
        labels = labels.reshape(-1, 1)
        losses = -ops.gather_elements(log_probabilities, 1, labels).reshape(-1)
        hits = (ops.topk(logits, self.guesses)[1] == labels).astype(ms.float32)
        top1, top5 = hits[:, 0], hits.sum(1)
        # A weight of 0 must also silence what is not a number.
        losses = ops.select(weights > 0, losses, ops.zeros_like(losses))
        return losses.sum(), (top1 * weights).sum(), (top5 * weights).sum()


def evaluate(
    step: EvalStep, batches: Iterable[tuple[np.ndarray, np.ndarray]], batch_size: int, ranks: Ranks = SINGLE_PROCESS
) -> Evaluation:
    """Evaluate the step's model over ``batches`` of (images, labels), the last of which may be smaller.

    It is filled up to ``batch_size`` with copies that weigh nothing, so that one compiled graph serves all. Each of
    several ranks sees a part of the images, and the result is that of all.
    """
    was_training = step.model.training
    step.set_train(False)
    images_seen, sums = 0, np.zeros(3)
    for images, labels in batches:
        count = len(labels)
        rows = np.minimum(np.arange(batch_size), count - 1)
        weights = (np.arange(batch_size) < count).astype(np.float32)
        results = step(Tensor(images[rows]), Tensor(labels[rows].astype(np.int32)), Tensor(weights))
        sums += [float(value.asnumpy()) for value in results]
        images_seen += count
    step.model.set_train(was_training)
    *sums, images_seen = ranks.sum([*sums, images_seen])
    loss, top1, top5 = np.array(sums) / max(1, images_seen)
    return Evaluation(int(images_seen), 100 * top1, 100 * top5, loss)
