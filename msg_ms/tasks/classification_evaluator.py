"""Accuracy and cross entropy of a classifier, and the predictions for every image where they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from ..data import DeviceCollate, ImageFolder
from ..data.classification import ClassificationEvalBatch
from ..data.images.class_names import ClassName
from ..engine.ranks import Ranks
from ..engine.task import Metric, Metrics
from .classification_results import TOP, Predicted, write_predictions

METRICS = (
    Metric("top1", "top-1", "{:.2f}%"),
    Metric("top5", "top-5", "{:.2f}%"),
    Metric("loss", "loss", "{:.4f}", higher_is_better=False, breaks_ties=True),
)


class ClassificationSums(nn.Cell):
    """Sums over a batch: images, labels (B,), index (B,), valid (B,) -> (cross entropy, top-1 hits, top-5 hits).

    Images are float32 (B, 3, S, S), or uint8 (B, S, S, 3).

    Args:
        model: The classifier.
        num_classes: With fewer than five classes, top-5 counts all of them.
        details: Whether to return the values of each image, too: cross entropy (B,), the most probable classes and
            the logarithms of their probabilities, (B, guesses) each.
    """

    def __init__(self, model: nn.Cell, num_classes: int, details: bool = False):
        super().__init__(auto_prefix=False)
        self.model, self.collate = model, DeviceCollate()
        self.guesses, self.details = min(TOP, num_classes), details

    def construct(self, images: Tensor, labels: Tensor, index: Tensor, valid: Tensor) -> tuple[Tensor, ...]:
        """Return the three sums over the valid rows, and the details."""
        logits = self.model(self.collate(images) if images.dtype == ms.uint8 else images)
        log_probabilities = ops.log_softmax(logits, -1)
        labels = labels.reshape(-1, 1)
        losses = -ops.gather_elements(log_probabilities, 1, labels).reshape(-1)
        best = ops.topk(logits, self.guesses)[1]
        hits = (best == labels).astype(ms.float32)
        top1, top5 = hits[:, 0], hits.sum(1)
        # Padding must not count even if its loss is NaN.
        losses = ops.select(valid > 0, losses, ops.zeros_like(losses))
        sums = losses.sum(), (top1 * valid).sum(), (top5 * valid).sum()
        return (*sums, losses, best, ops.gather_elements(log_probabilities, 1, best)) if self.details else sums


class ClassificationEvaluator:
    """Accuracy in percent and mean cross entropy without smoothing.

    Args:
        model: The classifier.
        num_classes: Number of classes.
    """

    def __init__(self, model: nn.Cell, num_classes: int):
        self.network = ClassificationSums(model, num_classes)
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self.sums, self.count = np.zeros(3), 0

    def update(self, batch: ClassificationEvalBatch, outputs: tuple[Tensor, ...]) -> None:
        """Add the sums over a batch."""
        self.sums += [float(value.asnumpy()) for value in outputs]
        self.count += int(batch.valid.sum())

    def compute(self, ranks: Ranks) -> Metrics:
        """Return the metrics over all images of all ranks."""
        *sums, count = ranks.sum([*self.sums, self.count])
        loss, top1, top5 = np.array(sums) / max(1, count)
        values: dict[str, float | None] = {"top1": float(100 * top1), "top5": float(100 * top5), "loss": float(loss)}
        return Metrics(METRICS, values, int(count))


class DetailedEvaluator(ClassificationEvaluator):
    """The same metrics, with the predictions for each image and the outputs that follow from them.

    Args:
        model: The classifier.
        folder: The evaluation images.
        names: Names of the classes.

    Attributes:
        predicted: The predictions for the images of all ranks, on rank 0 after ``compute``.
    """

    predicted: Predicted

    def __init__(self, model: nn.Cell, folder: ImageFolder, names: Sequence[ClassName]):
        self.folder, self.names = folder, names
        self.network = ClassificationSums(model, len(names), details=True)
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        super().reset()
        none, guesses = np.zeros(0, np.int32), np.zeros((0, self.network.guesses), np.int32)
        self.parts = [Predicted(none, none, none.astype(np.float32), guesses, guesses.astype(np.float32))]

    def update(self, batch: ClassificationEvalBatch, outputs: tuple[Tensor, ...]) -> None:
        """Add the sums over a batch and its predictions."""
        super().update(batch, outputs[:3])
        kept = batch.valid > 0
        losses, best, logarithms = (output.asnumpy()[kept] for output in outputs[3:])
        probabilities = np.exp(logarithms.astype(np.float32))
        values = batch.index[kept], batch.labels[kept], losses.astype(np.float32), best.astype(np.int32), probabilities
        self.parts.append(Predicted(*values))

    def compute(self, ranks: Ranks) -> Metrics:
        """Return the metrics over all images of all ranks."""
        parts = ranks.gather_bytes(Predicted.joined(self.parts).to_bytes())
        if ranks.is_main:
            self.predicted = Predicted.joined(map(Predicted.from_bytes, parts))
        return super().compute(ranks)

    def write_results(self, path: Path) -> None:
        """Write file, class and most probable classes of each image, as JSON or CSV, on rank 0 after ``compute``."""
        write_predictions(path, self.predicted, self.folder, self.names)

    def per_class(self) -> Sequence[str]:
        """Return a line with the accuracy of each class, on rank 0 after ``compute``."""
        predicted, count = self.predicted, len(self.names)
        totals = np.bincount(predicted.labels, minlength=count)
        hits = [np.bincount(predicted.labels[hit], minlength=count) for hit in (predicted.right, predicted.near)]
        return [
            f"{name.short}: top-1 {100 * top1 / total:.2f}%, top-5 {100 * top5 / total:.2f}% on {total} images"
            if total
            else f"{name.short}: no images, the accuracy is undefined"
            for name, total, top1, top5 in zip(self.names, totals, *hits, strict=True)
        ]
