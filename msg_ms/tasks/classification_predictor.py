"""Classify image files, a batch at a time."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mindspore import Tensor, ops

from ..config import Config
from ..data.images.class_names import ClassName
from ..data.pipeline import pad_batch
from ..data.pixels.collate import collate
from ..data.pixels.image_files import BadFiles, decode_file
from ..data.pixels.transforms import resize_and_crop, with_channels
from ..engine.predictor import DEFAULT_OPTIONS, TOP_K, PredictOptions, Unreadable
from ..errors import UserError
from ..models.messages import MessageAttention
from ..models.msg_transformer import MSGTransformer
from ..visualize.attention import draw_msg_attention
from ..visualize.contact_sheet import TILE
from .classes import class_record
from .predictions import ClassificationPrediction

BATCH = 16  # images at a time, where the options name no number


class ClassificationPredictor:
    """Reads images as evaluation does and classifies them.

    Args:
        model: The classifier in evaluation mode.
        config: The whole configuration.
        names: Names of the classes.
        options: The wishes of the person who asks.
        warnings: Lines that a person should read first.
    """

    tile = TILE

    def __init__(
        self,
        model: MSGTransformer,
        config: Config,
        names: Sequence[ClassName],
        options: PredictOptions = DEFAULT_OPTIONS,
        warnings: Sequence[str] = (),
    ):
        self.model, self.config, self.names, self.warnings = model, config, names, warnings
        self.batch_size, self.top_k = options.batch_size or BATCH, options.top_k or TOP_K
        self.messages = options.show_messages
        self.network = MessageAttention(model) if self.messages else model

    def predict(self, files: Sequence[Path | np.ndarray]) -> Iterator[ClassificationPrediction | Unreadable]:
        """Yield one result per file, in the order of the files; see ``Predictor``.

        Raises:
            UserError: If the model's outputs are not finite.
        """
        size = min(self.batch_size, len(files))
        for begin in range(0, len(files), size or 1):
            yield from self._predict_batch(files[begin : begin + size], size)

    def _predict_batch(
        self, files: Sequence[Path | np.ndarray], size: int
    ) -> Iterator[ClassificationPrediction | Unreadable]:
        bad, data = BadFiles(limit=sys.maxsize), self.config.data
        images = [file if isinstance(file, np.ndarray) else decode_file(str(file), bad) for file in files]
        crops = [
            resize_and_crop(image, data.img_size, data.interpolation, self.config.test.crop)
            for image in images
            if image is not None
        ]
        outputs = iter(zip(crops, *self._run(crops, size), strict=True) if crops else ())
        for file, image in zip(files, images, strict=True):
            if image is None:
                yield Unreadable(Path(str(file)), bad.reasons[str(file)])
            else:
                name = None if isinstance(file, np.ndarray) else file
                yield ClassificationPrediction(name, image, *next(outputs), self.names)

    def _run(self, crops: Sequence[np.ndarray], size: int) -> tuple[np.ndarray, list[tuple[np.ndarray, ...]]]:
        """Return probabilities (n, K) and attention weights of every crop; batches are padded to ``size``."""
        count, channels = len(crops), self.config.model.msg.in_chans
        images, _ = pad_batch((collate([with_channels(crop, channels) for crop in crops]),), size)
        outputs = self.network(Tensor(images))
        logits, weights = outputs if self.messages else (outputs, ())
        probabilities = ops.softmax(logits, -1).asnumpy()[:count]
        if not np.isfinite(probabilities).all():
            raise UserError(
                "model outputs are not finite (NaN/Inf): the weights are damaged, or half precision overflows"
            )
        stages = [stage.asnumpy().reshape(size, -1, *stage.shape[1:]) for stage in weights]
        return probabilities, [tuple(stage[i] for stage in stages) for i in range(count)]

    def record(self, prediction: ClassificationPrediction) -> dict[str, Any]:
        """Return the most probable classes with their probabilities."""
        rows = ((class_record(self.names, i), prediction.probabilities[i]) for i in prediction.best(self.top_k))
        return {"predictions": [{**row, "probability": float(probability)} for row, probability in rows]}

    def text(self, prediction: ClassificationPrediction) -> str:
        """Return the most probable classes with their probabilities in a line."""
        best = prediction.best(self.top_k)
        return " | ".join(f"{prediction.probabilities[i]:.1%} {self.names[i].name}" for i in best)

    def picture(self, prediction: ClassificationPrediction) -> tuple[np.ndarray, str]:
        """Return the image and its most probable class."""
        return prediction.image, prediction.caption

    def drawing(self, prediction: ClassificationPrediction) -> np.ndarray:
        """Return the attention of each stage's MSG tokens, drawn on the part of the image that the model saw."""
        model, (_, caption) = self.model, self.picture(prediction)
        return draw_msg_attention(prediction.crop, prediction.weights, model.geometry, model.window_size, caption)
