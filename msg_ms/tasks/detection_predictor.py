"""Detect objects in image files, one at a time."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mindspore import Tensor

from ..config import Config
from ..data.canvases import by_area, choose_canvases
from ..data.images.class_names import ClassName
from ..data.pixels.detection_transforms import eval_transform, place, transform_image
from ..data.pixels.image_files import BadFiles, decode_file
from ..engine.predictor import DEFAULT_OPTIONS, SCORE_THR, PredictOptions, Unreadable
from ..models.detection.cascade_rcnn import CascadeMaskRCNN, Detections
from ..visualize.detections import SMALLEST
from .classes import class_record
from .predictions import DetectionPrediction


class DetectionPredictor:
    """Reads images as evaluation does and detects objects in them.

    Every canvas is a graph of its own, which is compiled for its first image.

    Args:
        model: The detector in evaluation mode.
        config: The whole configuration.
        names: Names of the classes.
        options: The wishes of the person who asks.
        warnings: Lines that a person should read first.
    """

    tile = SMALLEST

    def __init__(
        self,
        model: CascadeMaskRCNN,
        config: Config,
        names: Sequence[ClassName],
        options: PredictOptions = DEFAULT_OPTIONS,
        warnings: Sequence[str] = (),
    ):
        self.model, self.detection, self.names, self.warnings = model, config.detection, names, warnings
        self.score_thr = SCORE_THR if options.score_thr is None else options.score_thr
        self.canvases = by_area(config.detection.canvases)

    def predict(self, files: Sequence[Path | np.ndarray]) -> Iterator[DetectionPrediction | Unreadable]:
        """Yield one result per file, in the order of the files; see ``Predictor``."""
        bad = BadFiles(limit=sys.maxsize)
        for file in files:
            name = None if isinstance(file, np.ndarray) else file
            image = file if isinstance(file, np.ndarray) else decode_file(str(file), bad)
            if image is None:
                yield Unreadable(Path(str(file)), bad.reasons[str(file)])
            else:
                yield DetectionPrediction(name, image, self.detect(image), self.names, self.score_thr)

    def detect(self, image: np.ndarray) -> Detections:
        """Return the objects in an image, uint8 RGB (H, W, 3)."""
        transform = eval_transform((image.shape[0], image.shape[1]), self.detection)
        canvas = tuple(self.canvases[choose_canvases(np.array([transform.size]), self.canvases)[0]].tolist())
        transform = transform.within(canvas)
        pixels = np.zeros((1, 3, *canvas), np.float32)
        place(transform_image(image, transform), pixels[0])
        sizes, factors = np.array([transform.size]), np.array([transform.scale_factors * 2])
        return self.model.predict(Tensor(pixels), sizes, np.array([transform.original]), factors)[0]

    def record(self, prediction: DetectionPrediction) -> dict[str, Any]:
        """Return the objects with a score of at least ``score_thr``."""
        found = prediction.detections
        objects = [
            {
                **class_record(self.names, int(found.labels[i])),
                "score": float(found.scores[i]),
                "box": found.boxes[i].tolist(),
                **({} if found.masks is None else {"segmentation": found.masks[i]}),
            }
            for i in prediction.kept
        ]
        return {"objects": objects}

    def text(self, prediction: DetectionPrediction) -> str:
        """Return names and scores of these objects in a line."""
        names = [f"{name} {score:.2f}" for name, score in zip(prediction.classes, prediction.scores, strict=True)]
        return " | ".join(names) or f"no object with a score of {self.score_thr:g}"

    def picture(self, prediction: DetectionPrediction) -> tuple[np.ndarray, str]:
        """Return the image with boxes and masks of these objects, and the file's name."""
        return prediction.draw(), prediction.file.name if prediction.file else ""
