"""Detect objects in image files, one at a time."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mindspore import Tensor

from ..config import Config
from ..data.canvases import by_area, choose_canvases
from ..data.pixels.detection_transforms import eval_transform, place, transform_image
from ..data.pixels.image_files import BadFiles, decode_file
from ..models.detection.cascade_rcnn import CascadeMaskRCNN, Detections
from .classification_predictor import Unreadable


@dataclass(frozen=True)
class DetectionPrediction:
    """The model's output for one image.

    Attributes:
        file: The image file.
        image: The image, uint8 RGB (H, W, 3).
        detections: The objects, by falling score.
    """

    file: Path
    image: np.ndarray
    detections: Detections


class DetectionPredictor:
    """Reads images as evaluation does and detects objects in them.

    Every canvas is a graph of its own, which is compiled for its first image.

    Args:
        model: The detector in evaluation mode.
        config: The whole configuration.
    """

    def __init__(self, model: CascadeMaskRCNN, config: Config):
        self.model, self.detection = model, config.detection
        self.canvases = by_area(config.detection.canvases)

    def predict(self, files: Sequence[Path]) -> Iterator[DetectionPrediction | Unreadable]:
        """Yield one result per file, in the order of the files."""
        bad = BadFiles(limit=sys.maxsize)
        for file in files:
            image = decode_file(str(file), bad)
            if image is None:
                yield Unreadable(file, bad.reasons[str(file)])
            else:
                yield DetectionPrediction(file, image, self.detect(image))

    def detect(self, image: np.ndarray) -> Detections:
        """Return the objects in an image, uint8 RGB (H, W, 3)."""
        transform = eval_transform(image.shape[:2], self.detection)
        canvas = tuple(self.canvases[choose_canvases(np.array([transform.size]), self.canvases)[0]].tolist())
        transform = transform.within(canvas)
        pixels = np.zeros((1, 3, *canvas), np.float32)
        place(transform_image(image, transform), pixels[0])
        sizes, factors = np.array([transform.size]), np.array([transform.scale_factors * 2])
        return self.model.predict(Tensor(pixels), sizes, np.array([transform.original]), factors)[0]
