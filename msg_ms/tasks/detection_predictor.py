"""Detect objects in image files, in batches of one canvas."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mindspore import Tensor

from ..config import Config
from ..data.canvases import Canvas, by_area, choose_canvases
from ..data.images.class_names import ClassName
from ..data.pipeline import pad_batch, parts_of_groups
from ..data.pixels.detection_transforms import ImageTransform, eval_transform, place, transform_image
from ..data.pixels.image_files import BadFiles, decode_file, size_of_file
from ..engine.predictor import DEFAULT_OPTIONS, SCORE_THR, PredictOptions, Unreadable
from ..models.detection.cascade_rcnn import CascadeMaskRCNN, Detections
from ..visualize.detections import SMALLEST
from .classes import class_record
from .predictions import DetectionPrediction


class DetectionPredictor:
    """Reads images as evaluation does and detects objects in them.

    Images of one canvas are detected together. Every canvas is a graph of its own, which is compiled for its first
    batch.

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
        self.batch_size = options.batch_size or config.data.batch_size

    def predict(self, files: Sequence[Path | np.ndarray]) -> Iterator[DetectionPrediction | Unreadable]:
        """Yield one result per file, in the order of the files; see ``Predictor``.

        A batch is detected when its first file is due, so at most ``batch_size`` results of every canvas wait.
        """
        bad = BadFiles(limit=sys.maxsize)
        transforms = [self._transform(file, bad) for file in files]
        known = [i for i, transform in enumerate(transforms) if transform is not None]
        sizes = np.array([transform.size for transform in transforms if transform is not None]).reshape(-1, 2)
        canvas_of = choose_canvases(sizes, self.canvases) if known else np.zeros(0, np.int64)
        batch_of = {known[part[0]]: part for part in parts_of_groups(canvas_of, self.batch_size)}
        most = np.minimum(np.bincount(canvas_of, minlength=len(self.canvases)), self.batch_size)
        done: dict[int, DetectionPrediction | Unreadable] = {}
        for number, file in enumerate(files):
            if number in batch_of:
                part = batch_of[number]
                chosen, canvas = [known[i] for i in part], canvas_of[part[0]]
                own = [(files[i], transforms[i]) for i in chosen]
                height, width = self.canvases[canvas].tolist()
                done |= zip(chosen, self._predict_batch(own, (height, width), int(most[canvas]), bad), strict=True)
            yield done.pop(number) if number in done else _unreadable(file, bad)

    def _transform(self, file: Path | np.ndarray, bad: BadFiles) -> ImageTransform | None:
        """Return how evaluation resizes an image, by its header; None if it can't be read."""
        size = file.shape[:2] if isinstance(file, np.ndarray) else size_of_file(str(file), bad)
        return None if size is None else eval_transform((size[0], size[1]), self.detection)

    def _predict_batch(
        self, files: Sequence[tuple[Path | np.ndarray, ImageTransform]], canvas: Canvas, size: int, bad: BadFiles
    ) -> list[DetectionPrediction | Unreadable]:
        """Return the results of files of one canvas; the batch is padded to ``size``."""
        images = [file if isinstance(file, np.ndarray) else decode_file(str(file), bad) for file, _ in files]
        read = [(image, transform) for image, (_, transform) in zip(images, files, strict=True) if image is not None]
        found = iter(self._detect(read, canvas, size) if read else ())
        results: list[DetectionPrediction | Unreadable] = []
        for (file, _), image in zip(files, images, strict=True):
            if image is None:
                results.append(_unreadable(file, bad))
            else:
                name = None if isinstance(file, np.ndarray) else file
                results.append(DetectionPrediction(name, image, next(found), self.names, self.score_thr))
        return results

    def _detect(
        self, images: Sequence[tuple[np.ndarray, ImageTransform]], canvas: Canvas, size: int
    ) -> list[Detections]:
        """Return the objects in images, each with its transform; the batch is padded to ``size``."""
        pixels, transforms = np.zeros((len(images), 3, *canvas), np.float32), []
        for output, (image, transform) in zip(pixels, images, strict=True):
            if image.shape[:2] != transform.original:  # in some formats the header has another size
                transform = eval_transform((image.shape[0], image.shape[1]), self.detection)
            transforms.append(transform.within(canvas))
            place(transform_image(image, transforms[-1]), output)
        shapes = np.array([transform.size for transform in transforms])
        originals = np.array([transform.original for transform in transforms])
        factors = np.array([transform.scale_factors * 2 for transform in transforms])
        pixels, shapes, originals, factors, _ = pad_batch((pixels, shapes, originals, factors), size)
        return self.model.predict(Tensor(pixels), shapes, originals, factors)[: len(images)]

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


def _unreadable(file: Path | np.ndarray, bad: BadFiles) -> Unreadable:
    return Unreadable(Path(str(file)), bad.reasons[str(file)])
