"""What the model gives on images drawn at random, and whether an exported file gives the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from mindspore import Tensor, nn, ops

from ..errors import UserError
from ..models.msg_transformer import MSGTransformer

INPUT = "images"
TOLERANCE = 1e-4  # largest difference, as a part of the largest output
DYNAMIC_BATCHES = (1, 3)  # what a file for any number of images is tried with
MOST_IMAGES = 4  # that the model itself runs for a file with a fixed number; a larger batch repeats them

Run = Callable[[np.ndarray], np.ndarray]


class Probabilities(nn.Cell):
    """The model with a softmax behind it; the parameters keep their names."""

    def __init__(self, model: MSGTransformer):
        super().__init__(auto_prefix=False)
        self.model = model

    def construct(self, images: Tensor) -> Tensor:
        return ops.softmax(self.model(images), -1)


def output_name(model: MSGTransformer, softmax: bool) -> str:
    return "probabilities" if softmax else "logits" if model.num_classes else "features"


def with_output(model: MSGTransformer, softmax: bool) -> nn.Cell:
    return Probabilities(model) if softmax else model


@dataclass(frozen=True)
class Reference:
    """Images (n, C, H, W), what the model gives for them one by one, and the batches that a file is tried with."""

    images: np.ndarray
    outputs: np.ndarray
    batches: tuple[int, ...]

    @classmethod
    def of(cls, model: MSGTransformer, softmax: bool, batch: int | None) -> Reference:
        """For ``batch`` images, or with None any number. Raises UserError for weights that give no numbers."""
        batches = DYNAMIC_BATCHES if batch is None else (batch,)
        shape = (min(max(batches), MOST_IMAGES), model.in_chans, *model.img_size)
        images = np.random.RandomState(0).standard_normal(shape).astype(np.float32)
        run = with_output(model, softmax).set_train(False)
        outputs = np.concatenate([run(Tensor(images[i : i + 1])).asnumpy() for i in range(len(images))])
        if not np.isfinite(outputs).all():
            raise UserError("the model gives infinite or undefined outputs: these weights can't be exported")
        return cls(images, outputs, batches)

    def difference(self, run: Run) -> float:
        """Largest difference between what ``run`` gives and the model's outputs, over all batches."""
        worst = 0.0
        for batch in self.batches:
            rows = np.arange(batch) % len(self.images)
            got, wanted = run(self.images[rows]), self.outputs[rows]
            if got.shape != wanted.shape:
                raise UserError(f"it gives {got.shape} for {batch} images, the model {wanted.shape}")
            worst = np.maximum(worst, np.abs(got - wanted).max())  # not max(), which may lose a NaN
        return float(worst)

    def check(self, run: Run, engine: str) -> str:
        """A line on the comparison; raises UserError where the outputs differ by more than :data:`TOLERANCE`."""
        worst, largest = self.difference(run), float(np.abs(self.outputs).max())
        if not worst <= TOLERANCE * largest:
            raise UserError(
                f"its outputs in {engine} differ from the model's by {worst:.1e} where the largest is {largest:.2g}; "
                f"at most {TOLERANCE * largest:.1e} is let through"
            )
        batches = " and ".join(map(str, self.batches))
        return f"{engine}: largest difference to the model {worst:.1e}, outputs up to {largest:.2g}, batch {batches}"
