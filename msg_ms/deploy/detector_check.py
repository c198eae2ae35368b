"""Comparison of an exported detector with the model on random images."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from mindspore import Tensor

from ..errors import UserError
from ..models.detection.cascade_rcnn import CascadeMaskRCNN
from .check import TOLERANCE
from .engines import Run

INPUTS = ("images", "img_shapes", "scale_factors")
OUTPUTS = ("boxes", "scores", "labels", "masks", "used")  # masks if the detector has them
DYNAMIC_BATCHES = (1, 2)  # batch sizes in the test of a file with a dynamic batch
IMAGES = 2  # images that the model runs; a larger batch repeats them


def output_names(model: CascadeMaskRCNN) -> tuple[str, ...]:
    """Return the names of a detector's outputs."""
    return OUTPUTS if model.settings.masks else tuple(name for name in OUTPUTS if name != "masks")


@dataclass(frozen=True)
class DetectorReference:
    """Random images with the model's detections.

    Attributes:
        inputs: Images, img_shapes and scale_factors as in ``CascadeMaskRCNN.construct``.
        outputs: The outputs of ``CascadeMaskRCNN.construct``.
        batches: Batch sizes to run a file with.
    """

    inputs: tuple[np.ndarray, ...]
    outputs: tuple[np.ndarray, ...]
    batches: tuple[int, ...]

    @classmethod
    def of(cls, model: CascadeMaskRCNN, canvas: tuple[int, int], batch: int | None) -> DetectorReference:
        """Run the model on random images with a score threshold of 0.

        A trained detector finds nothing in random images, and no detections would be compared.

        Args:
            model: The detector in evaluation mode.
            canvas: Height and width of the images with padding.
            batch: Batch size of the file, or None if it is dynamic.

        Raises:
            UserError: The outputs are not finite.
        """
        batches = DYNAMIC_BATCHES if batch is None else (batch,)
        inputs = _random_inputs(min(max(batches), IMAGES), model.backbone.in_chans, canvas)
        with _no_threshold(model):
            found = [model(*(Tensor(value[i : i + 1]) for value in inputs)) for i in range(len(inputs[0]))]
        outputs = tuple(np.concatenate([o.asnumpy() for o in values]) for values in zip(*found, strict=True))
        if not all(np.isfinite(values).all() for values in outputs):
            raise UserError("model outputs are not finite (NaN/Inf): these weights can't be exported")
        return cls(inputs, outputs, batches)

    def check(self, run: Run, engine: str, threshold: float = 0.0, misses: float = 0.0) -> str:
        """Compare a file's detections with the model's, in any order.

        Args:
            run: Function from the inputs to the outputs.
            engine: Name of the inference engine, for the texts.
            threshold: The file's score threshold.
            misses: Share of the detections that may be others.

        Returns:
            A line with the number of equal detections and the largest difference.

        Raises:
            UserError: More detections differ.
        """
        worst, equal, total = np.zeros(3), 0, 0
        for batch in self.batches:
            rows = np.arange(batch) % len(self.inputs[0])
            outputs = run([value[rows] for value in self.inputs])
            for place, row in enumerate(rows.tolist()):
                own = _detections([output[place] for output in outputs], threshold)
                expected = _detections([output[row] for output in self.outputs], threshold)
                differences = self._differences(own, expected)
                worst = np.maximum(worst, differences.max(0, initial=0))
                equal, total = equal + len(differences), total + max(len(own[0]), len(expected[0]))
        if total - equal > misses * total:
            raise UserError(f"{total - equal} of {total} detections in {engine} differ from the model's")
        boxes, scores, masks = worst
        batches = " and ".join(map(str, self.batches))
        mask_text = f", masks {masks:.1e}" if len(self.outputs) == len(OUTPUTS) else ""
        return (
            f"{engine}: {equal} of {total} detections equal the model's (boxes within {boxes:.1e} pixels, scores "
            f"{scores:.1e}{mask_text}), batch {batches}"
        )

    def _differences(self, own: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> np.ndarray:
        """Return the differences in boxes, scores and masks of the pairs of equal detections, (pairs, 3)."""
        largest = max(1.0, float(np.abs(self.outputs[0]).max()))
        limits, pairs, free = TOLERANCE * np.array([largest, 1, 1]), [], np.ones(len(own[0]), bool)
        for box, score, label, *mask in zip(*expected, strict=True):
            gap = np.stack([np.abs(own[0] - box).max(1), np.abs(own[1] - score)], 1)
            for i in np.flatnonzero(free & (own[2] == label) & (gap <= limits[:2]).all(1)):
                difference = np.array([*gap[i], np.abs(own[3][i] - mask[0]).max() if mask else 0.0])
                if (difference <= limits).all():
                    free[i] = False
                    pairs.append(difference)
                    break
        return np.array(pairs).reshape(-1, 3)


@contextlib.contextmanager
def _no_threshold(model: CascadeMaskRCNN) -> Iterator[None]:
    """Set the score threshold to 0; graphs compiled before and inside are discarded."""
    cell = model.detections
    threshold, cell.score_threshold = cell.score_threshold, 0.0
    model.compile_cache.clear()
    try:
        yield
    finally:
        cell.score_threshold = threshold
        model.compile_cache.clear()


def _random_inputs(count: int, channels: int, canvas: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Return images of which the second is smaller than the canvas and was resized."""
    draws, (height, width) = np.random.RandomState(0), canvas
    images = draws.standard_normal((count, channels, height, width)).astype(np.float32)
    sizes, factors = np.full((count, 2), canvas, np.float32), np.ones((count, 4), np.float32)
    for i in range(1, count):
        sizes[i], factors[i] = (height - height // 8, width - width // 4), (1.5, 1.25, 1.5, 1.25)
        images[i, :, height - height // 8 :], images[i, :, :, width - width // 4 :] = 0, 0
    return images, sizes, factors


def _detections(outputs: Sequence[np.ndarray], threshold: float) -> list[np.ndarray]:
    """Return boxes, scores, labels and any masks of one image's detections above a threshold."""
    *values, used = outputs
    chosen = used & (values[1] > threshold)
    return [value[chosen] for value in values]
