"""The predictions for one image, with names and drawings for Python users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..boxes.rle import decode_rle
from ..data.images.class_names import ClassName
from ..engine.predictor import SCORE_THR
from ..models.arguments import whole_number
from ..models.detection.cascade_rcnn import Detections
from ..visualize.contact_sheet import draw_sheet
from ..visualize.detections import draw_objects

PLOT = 320  # pixels of the side of the drawing of a classified image


@dataclass(frozen=True, eq=False)
class ClassificationPrediction:
    """The probabilities of the classes for one image.

    Attributes:
        file: The image file; None for an image from memory.
        image: The image, uint8 RGB (H, W, 3).
        crop: The part that the model saw, uint8 RGB (S, S, 3).
        probabilities: The classes' probabilities (K,), float32.
        weights: Attention weights (R, G, N) of each stage's MSG tokens, if they were asked for.
        names: Names of the classes in the order of their labels.
    """

    file: Path | None
    image: np.ndarray
    crop: np.ndarray
    probabilities: np.ndarray
    weights: tuple[np.ndarray, ...] = ()
    names: Sequence[ClassName] = ()

    @property
    def label(self) -> int:
        """The most probable class."""
        return int(np.argmax(self.probabilities))

    @property
    def name(self) -> str:
        """Name of the most probable class."""
        return self.names[self.label].name

    @property
    def probability(self) -> float:
        """Probability of the most probable class."""
        return float(self.probabilities[self.label])

    def best(self, count: int) -> list[int]:
        """Return the labels of the ``count`` most probable classes, by falling probability; UserError below 0."""
        return np.argsort(-self.probabilities, kind="stable")[: whole_number("count", count, 0)].tolist()

    @property
    def caption(self) -> str:
        """The most probable class and its probability in a few words."""
        return f"{self.probability:.0%} {self.names[self.label].short}"

    def plot(self) -> Image.Image:
        """Return the image with its most probable class below."""
        return Image.fromarray(draw_sheet([self.image], [self.caption], PLOT))

    def __repr__(self) -> str:
        """Return file, name and probability."""
        return f"ClassificationPrediction({_source(self.file)}: {self.probability:.1%} {self.name})"


@dataclass(frozen=True, eq=False)
class DetectionPrediction:
    """The objects in one image, by falling score.

    Attributes:
        file: The image file; None for an image from memory.
        image: The image, uint8 RGB (H, W, 3).
        detections: All objects that the model reports.
        names: Names of the classes in the order of their labels.
        score_thr: Least score of the objects in the other attributes.
    """

    file: Path | None
    image: np.ndarray
    detections: Detections
    names: Sequence[ClassName] = ()
    score_thr: float = SCORE_THR

    @property
    def kept(self) -> np.ndarray:
        """Indices of the objects with a score of at least ``score_thr``."""
        return np.flatnonzero(self.detections.scores >= self.score_thr)

    @property
    def boxes(self) -> np.ndarray:
        """Boxes (N, 4), (x1, y1, x2, y2) in pixels, float32."""
        return self.detections.boxes[self.kept]

    @property
    def scores(self) -> np.ndarray:
        """Probabilities (N,), float32."""
        return self.detections.scores[self.kept]

    @property
    def labels(self) -> np.ndarray:
        """Classes (N,), int32."""
        return self.detections.labels[self.kept]

    @property
    def masks(self) -> np.ndarray | None:
        """Masks (N, H, W), bool; None from a detector without masks."""
        encoded = self.detections.masks
        if encoded is None:
            return None
        masks = [decode_rle(encoded[i]) for i in self.kept]
        return np.array(masks, bool).reshape(-1, *self.image.shape[:2])

    @property
    def classes(self) -> list[str]:
        """Name of the class of each object."""
        return [self.names[label].name for label in self.labels]

    def draw(self) -> np.ndarray:
        """Return the image with boxes, masks and names, uint8 RGB, enlarged if it is small."""
        labels = self.labels.tolist()
        texts = [f"{self.names[label].short} {score:.2f}" for label, score in zip(labels, self.scores, strict=True)]
        masks = self.masks
        return draw_objects(self.image, self.boxes, labels, texts, () if masks is None else list(masks))

    def plot(self) -> Image.Image:
        """Return the image with boxes, masks and names drawn."""
        return Image.fromarray(self.draw())

    def __repr__(self) -> str:
        """Return file, names and scores."""
        objects = ", ".join(f"{name} {score:.2f}" for name, score in zip(self.classes, self.scores, strict=True))
        return f"DetectionPrediction({_source(self.file)}: {objects or 'no objects'})"


def _source(file: Path | None) -> str:
    return "image" if file is None else str(file)
