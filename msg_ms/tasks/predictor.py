"""Pictures through a model, a batch at a time."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mindspore import Tensor, ops

from ..config import Config
from ..data.collate import collate
from ..data.pipeline import BadFiles, decode_file
from ..data.transforms import resize_and_crop
from ..errors import UserError
from ..models.messages import MessageAttention
from ..models.msg_transformer import MSGTransformer


@dataclass(frozen=True)
class Prediction:
    """What a model says of a picture.

    ``picture`` is the file's, ``crop`` what the model saw of it, uint8 RGB; ``probabilities`` (classes,) sum to 1;
    ``weights`` (R, G, N) are the message tokens' of each stage, see :func:`msg_ms.models.messages.message_weights`.
    """

    file: Path
    picture: np.ndarray
    crop: np.ndarray
    probabilities: np.ndarray
    weights: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True)
class Unreadable:
    """A file that is no picture, or can't be read, and why."""

    file: Path
    reason: str


class Predictor:
    """Reads pictures as evaluation does and classifies ``batch`` at a time; ``messages`` asks for their weights too."""

    def __init__(self, model: MSGTransformer, config: Config, batch: int, messages: bool = False):
        self.config, self.batch, self.messages = config, batch, messages
        self.step = MessageAttention(model) if messages else model

    def predict(self, files: Sequence[Path]) -> Iterator[Prediction | Unreadable]:
        """One answer per file, in their order."""
        for begin in range(0, len(files), self.batch):
            yield from self._answers(files[begin : begin + self.batch])

    def _answers(self, files: Sequence[Path]) -> Iterator[Prediction | Unreadable]:
        bad, data = BadFiles(limit=sys.maxsize), self.config.data
        pictures = [decode_file(str(file), bad) for file in files]
        crops = [
            resize_and_crop(p, data.img_size, data.interpolation, self.config.test.crop)
            for p in pictures
            if p is not None
        ]
        results = iter(zip(crops, *self._run(crops), strict=True) if crops else ())
        for file, picture in zip(files, pictures, strict=True):
            if picture is None:
                yield Unreadable(file, bad.reasons[str(file)])
            else:
                yield Prediction(file, picture, *next(results))

    def _run(self, crops: Sequence[np.ndarray]) -> tuple[np.ndarray, list[tuple[np.ndarray, ...]]]:
        """(probabilities, weights) with an entry per crop; the batch is filled up so that one graph serves all."""
        count = len(crops)
        result = self.step(Tensor(collate([crops[min(i, count - 1)] for i in range(self.batch)])))
        logits, weights = result if self.messages else (result, ())
        probabilities = ops.softmax(logits, -1).asnumpy()[:count]
        if not np.isfinite(probabilities).all():
            raise UserError("the model's answers are no numbers: its weights are broken, or half precision overflows")
        stages = [stage.asnumpy().reshape(self.batch, -1, *stage.shape[1:]) for stage in weights]
        return probabilities, [tuple(stage[i] for stage in stages) for i in range(count)]
