"""Classify image files, a batch at a time."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mindspore import Tensor, ops

from ..config import Config
from ..data.pipeline import pad_batch
from ..data.pixels.collate import collate
from ..data.pixels.image_files import BadFiles, decode_file
from ..data.pixels.transforms import resize_and_crop
from ..errors import UserError
from ..models.messages import MessageAttention
from ..models.msg_transformer import MSGTransformer


@dataclass(frozen=True)
class ClassificationPrediction:
    """The model's output for one image.

    Attributes:
        file: The image file.
        image: The image, uint8 RGB (H, W, 3).
        crop: The part that the model saw, uint8 RGB (S, S, 3).
        probabilities: The classes' probabilities (K,).
        weights: Attention weights (R, G, N) of each stage's MSG tokens, if they were asked for.
    """

    file: Path
    image: np.ndarray
    crop: np.ndarray
    probabilities: np.ndarray
    weights: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True)
class Unreadable:
    """A file that can't be read or decoded, with the reason."""

    file: Path
    reason: str


class ClassificationPredictor:
    """Reads images as evaluation does and classifies them.

    Args:
        model: The classifier in evaluation mode.
        config: The whole configuration.
        batch_size: Images at a time.
        messages: Whether to return the attention weights of the MSG tokens.
    """

    def __init__(self, model: MSGTransformer, config: Config, batch_size: int, messages: bool = False):
        self.config, self.batch_size, self.messages = config, batch_size, messages
        self.network = MessageAttention(model) if messages else model

    def predict(self, files: Sequence[Path]) -> Iterator[ClassificationPrediction | Unreadable]:
        """Yield one result per file, in the order of the files.

        Raises:
            UserError: If the model's outputs are not finite.
        """
        for begin in range(0, len(files), self.batch_size):
            yield from self._predict_batch(files[begin : begin + self.batch_size])

    def _predict_batch(self, files: Sequence[Path]) -> Iterator[ClassificationPrediction | Unreadable]:
        bad, data = BadFiles(limit=sys.maxsize), self.config.data
        images = [decode_file(str(file), bad) for file in files]
        crops = [
            resize_and_crop(image, data.img_size, data.interpolation, self.config.test.crop)
            for image in images
            if image is not None
        ]
        outputs = iter(zip(crops, *self._run(crops), strict=True) if crops else ())
        for file, image in zip(files, images, strict=True):
            if image is None:
                yield Unreadable(file, bad.reasons[str(file)])
            else:
                yield ClassificationPrediction(file, image, *next(outputs))

    def _run(self, crops: Sequence[np.ndarray]) -> tuple[np.ndarray, list[tuple[np.ndarray, ...]]]:
        """Return probabilities (n, K) and attention weights of every crop; batches are padded to one size."""
        count = len(crops)
        images, _ = pad_batch((collate(crops),), self.batch_size)
        outputs = self.network(Tensor(images))
        logits, weights = outputs if self.messages else (outputs, ())
        probabilities = ops.softmax(logits, -1).asnumpy()[:count]
        if not np.isfinite(probabilities).all():
            raise UserError(
                "model outputs are not finite (NaN/Inf): the weights are damaged, or half precision overflows"
            )
        stages = [stage.asnumpy().reshape(self.batch_size, -1, *stage.shape[1:]) for stage in weights]
        return probabilities, [tuple(stage[i] for stage in stages) for i in range(count)]
