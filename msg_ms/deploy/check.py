"""Comparison of an exported file with the model on random images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from mindspore import Tensor, nn, ops

from ..errors import UserError
from ..models.msg_transformer import MSGTransformer

INPUT = "images"
TOLERANCE = 1e-4  # largest difference / largest output
DYNAMIC_BATCHES = (1, 3)  # batch sizes in the test of a file with a dynamic batch
MAX_IMAGES = 4  # images that the model runs; a larger batch repeats them

Run = Callable[[np.ndarray], np.ndarray]


class Probabilities(nn.Cell):
    """The model followed by a softmax; the parameters keep their names."""

    def __init__(self, model: MSGTransformer):
        super().__init__(auto_prefix=False)
        self.model = model

    def construct(self, images: Tensor) -> Tensor:
        """Return the probabilities (B, num_classes) of images (B, in_chans, H, W)."""
        return ops.softmax(self.model(images), -1)


def output_name(model: MSGTransformer, softmax: bool) -> str:
    """Return the name of the file's output."""
    return "probabilities" if softmax else "logits" if model.num_classes else "features"


def with_output(model: MSGTransformer, softmax: bool) -> nn.Cell:
    """Return the network to export."""
    return Probabilities(model) if softmax else model


@dataclass(frozen=True)
class Reference:
    """Random images with the model's outputs.

    Attributes:
        images: float32 (n, C, H, W).
        outputs: The model's outputs for single images, float32 (n, outputs).
        batches: Batch sizes to run a file with.
    """

    images: np.ndarray
    outputs: np.ndarray
    batches: tuple[int, ...]

    @classmethod
    def of(cls, model: MSGTransformer, softmax: bool, batch: int | None) -> Reference:
        """Run the model on random images.

        Args:
            model: The trained model.
            softmax: Whether the output is followed by a softmax.
            batch: Batch size of the file, or None if it is dynamic.

        Raises:
            UserError: The outputs are not finite.
        """
        batches = DYNAMIC_BATCHES if batch is None else (batch,)
        shape = (min(max(batches), MAX_IMAGES), model.in_chans, *model.img_size)
        images = np.random.RandomState(0).standard_normal(shape).astype(np.float32)
        run = with_output(model, softmax).set_train(False)
        outputs = np.concatenate([run(Tensor(images[i : i + 1])).asnumpy() for i in range(len(images))])
        if not np.isfinite(outputs).all():
            raise UserError("model outputs are not finite (NaN/Inf): these weights can't be exported")
        return cls(images, outputs, batches)

    def difference(self, run: Run) -> float:
        """Return the largest difference between the outputs of ``run`` and of the model, over all batches."""
        worst = 0.0
        for batch in self.batches:
            rows = np.arange(batch) % len(self.images)
            outputs, expected = run(self.images[rows]), self.outputs[rows]
            if outputs.shape != expected.shape:
                raise UserError(f"output shape {outputs.shape} for {batch} images, expected {expected.shape}")
            worst = np.maximum(worst, np.abs(outputs - expected).max())  # max() could drop a NaN
        return float(worst)

    def check(self, run: Run, engine: str) -> str:
        """Compare ``run`` with the model.

        Args:
            run: Function from images (B, C, H, W) to outputs.
            engine: Name of the inference engine, for the texts.

        Returns:
            A line with the largest difference.

        Raises:
            UserError: The outputs differ by more than ``TOLERANCE``.
        """
        worst, largest = self.difference(run), float(np.abs(self.outputs).max())
        if not worst <= TOLERANCE * largest:
            raise UserError(
                f"its outputs in {engine} differ from the model's by {worst:.1e}, more than the tolerance of "
                f"{TOLERANCE * largest:.1e} (largest output {largest:.2g})"
            )
        batches = " and ".join(map(str, self.batches))
        return f"{engine}: largest difference from the model {worst:.1e}, outputs up to {largest:.2g}, batch {batches}"
