"""One model in one thread, which answers one person after the other."""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np

from ..api.loaded import TrainedModel, load
from ..boxes.rle import decode_rle, encode_rle
from ..engine.predictor import PredictOptions, Unreadable
from ..errors import UserError
from ..models.detection.cascade_rcnn import Detections
from ..tasks.classification_predictor import ClassificationPredictor
from ..tasks.predictions import ClassificationPrediction, DetectionPrediction
from ..visualize.detections import draw_objects
from .uploads import Limits, read_upload

Result = TypeVar("Result")
_KEPT = 16  # predictions whose threshold can be changed
_SIDE = 1600  # pixels of the long side of the images that are kept and shown
_WARM_UP = 64  # pixels of the side of the image that compiles the graph


@dataclass(frozen=True)
class Answer:
    """The content of the page for one image.

    Attributes:
        key: Names the prediction for ``ModelWorker.redraw``; empty if it does not depend on the threshold.
        drawing: The image, with its objects if there are any, uint8 RGB (H, W, 3).
        probabilities: Probability of each class by name; None for a detector.
        objects: (class, score, x1, y1, x2, y2) of each object, in pixels of the image.
        attention: Drawing of the MSG tokens' attention, uint8 RGB (H, W, 3); None for a detector.
    """

    key: str = ""
    drawing: np.ndarray | None = None
    probabilities: dict[str, float] | None = None
    objects: tuple[tuple[str, float, int, int, int, int], ...] = ()
    attention: np.ndarray | None = None


@dataclass(frozen=True)
class _Kept:
    """A prediction on a smaller image, and the boxes in pixels of the uploaded one."""

    prediction: DetectionPrediction
    boxes: np.ndarray


def _smaller(image: np.ndarray) -> np.ndarray:
    """Return an image that is small enough to be kept and sent to a browser."""
    height, width = image.shape[:2]
    scale = _SIDE / max(height, width)
    if scale >= 1:
        return image
    return cv2.resize(
        image, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA
    )


def _plain_drawing(image: np.ndarray) -> np.ndarray:
    """Return an image in the size in which objects are drawn."""
    return draw_objects(_smaller(image), np.zeros((0, 4)), (), ())


def _kept(prediction: DetectionPrediction) -> _Kept:
    """Return a prediction on a smaller image."""
    found, image = prediction.detections, _smaller(prediction.image)
    if image is prediction.image:
        return _Kept(prediction, found.boxes)
    size = image.shape[1], image.shape[0]
    factors = np.array([size[0] / prediction.image.shape[1], size[1] / prediction.image.shape[0]] * 2, np.float32)
    masks = None if found.masks is None else [_resized_mask(mask, size) for mask in found.masks]
    detections = Detections(found.boxes * factors, found.scores, found.labels, masks)
    return _Kept(replace(prediction, image=image, detections=detections), found.boxes)


def _resized_mask(mask: dict, size: tuple[int, int]) -> dict:
    pixels = cv2.resize(decode_rle(mask).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    return encode_rle(pixels > 0, size[1], size[0])


class ModelWorker:
    """A trained model in a thread of its own: MindSpore's graphs run one at a time.

    Args:
        checkpoint: File of the model.
        limits: The largest image that is accepted.
        cfg: Configuration file whose keys replace those of the checkpoint; None for none.
        device_target: "CPU", "GPU", "Ascend"; None for MindSpore's choice.

    Raises:
        UserError: The model can't be loaded.
    """

    def __init__(self, checkpoint: Path, limits: Limits, cfg: Path | None = None, device_target: str | None = None):
        self.limits = limits
        self._thread = ThreadPoolExecutor(1, "model")
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self.loaded: TrainedModel = self._thread.submit(load, checkpoint, cfg, device_target).result()
        self.detects = self.loaded.config.task == "detection"
        self._thread.submit(self._prepare).result()

    def answer(self, file: Path, threshold: float) -> Answer:
        """Return the prediction for an uploaded file.

        Args:
            file: The file.
            threshold: Least score of an object.

        Raises:
            UserError: The file is not an image within the limits.
        """
        return self._run(lambda: self._answer(file, threshold))

    def redraw(self, key: str, threshold: float) -> Answer:
        """Return an earlier prediction for another threshold; see ``answer``.

        Raises:
            UserError: The prediction is not kept any more.
        """
        return self._run(lambda: self._redraw(key, threshold))

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(cancel_futures=True)

    def _run(self, function: Callable[[], Result]) -> Result:
        return self._thread.submit(function).result()

    def _prepare(self) -> None:
        options = PredictOptions(batch_size=1, score_thr=0.0) if self.detects else PredictOptions(1, show_messages=True)
        loaded = self.loaded
        self.predictor = loaded.task.predictor(loaded.model, loaded.metadata, options)
        self._predict(np.zeros((_WARM_UP, _WARM_UP, 3), np.uint8))

    def _predict(self, image: np.ndarray) -> Any:
        (result,) = self.predictor.predict([image])
        if isinstance(result, Unreadable):
            raise UserError(f"This image can't be read ({result.reason}).")
        return result

    def _answer(self, file: Path, threshold: float) -> Answer:
        result = self._predict(read_upload(file, self.limits))
        if isinstance(result, DetectionPrediction):
            key = uuid.uuid4().hex
            self._kept[key] = _kept(result)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            return self._redraw(key, threshold)
        if isinstance(result, ClassificationPrediction):
            named = {result.names[i].name: float(result.probabilities[i]) for i in result.best(len(result.names))}
            assert isinstance(self.predictor, ClassificationPredictor)  # whose predictions these are
            drawing = self.predictor.drawing(result)
            return Answer(drawing=_plain_drawing(result.image), probabilities=named, attention=drawing)
        return Answer(drawing=np.asarray(result.plot().convert("RGB")))

    def _redraw(self, key: str, threshold: float) -> Answer:
        if key not in self._kept:
            raise UserError("This image is not kept any more; drop it again.")
        self._kept.move_to_end(key)
        kept = self._kept[key]
        prediction = replace(kept.prediction, score_thr=threshold)
        boxes = kept.boxes[prediction.kept].round().astype(int).tolist()
        rows = zip(prediction.classes, prediction.scores.tolist(), boxes, strict=True)
        objects = tuple((name, score, x1, y1, x2, y2) for name, score, (x1, y1, x2, y2) in rows)
        return Answer(key, prediction.draw(), objects=objects)
