"""AP and recall by class, size and IoU from the arrays of pycocotools' COCOeval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .content import Column

SIZES = ("all", "small", "medium", "large")  # pycocotools' areas, in its order
IOUS = {"50": 0, "75": 5}  # places in pycocotools' thresholds 0.50, 0.55 ... 0.95
RECALLS = np.linspace(0, 1, 101)
FORMAT = "{:.3f}"
COLUMNS = (
    *(Column("AP", format=FORMAT), Column("AP50", format=FORMAT), Column("AP75", format=FORMAT)),
    *(Column(f"AP_{size}", f"AP {size}", FORMAT) for size in SIZES[1:]),
    Column("AR", format=FORMAT),
)


@dataclass(frozen=True)
class Accumulated:
    """The arrays of ``COCOeval.accumulate``, in which -1 is undefined.

    Attributes:
        precision: At IoU thresholds T, recalls R, classes K, sizes A and limits of detections M, (T, R, K, A, M).
        recall: The largest recall, (T, K, A, M).
    """

    precision: np.ndarray
    recall: np.ndarray

    def ap(self, category: int | slice = slice(None), size: int = 0, iou: int | slice = slice(None)) -> float | None:
        """Return the mean precision over thresholds, recalls and classes; None if there are no objects."""
        return _mean(self.precision[iou, :, category, size, -1])

    def ar(self, category: int | slice = slice(None), size: int = 0) -> float | None:
        """Return the mean of the largest recalls over thresholds and classes; None if there are no objects."""
        return _mean(self.recall[:, category, size, -1])

    def row(self, category: int | slice = slice(None)) -> list[float | None]:
        """Return the values of ``COLUMNS`` of a class, or of all."""
        aps = [self.ap(category), *(self.ap(category, iou=place) for place in IOUS.values())]
        return [*aps, *(self.ap(category, size) for size in range(1, len(SIZES))), self.ar(category)]

    def curve(self, category: int | slice = slice(None), iou: int | slice = slice(None)) -> np.ndarray | None:
        """Return the precision at each recall, (R,), a mean over thresholds and classes; None without objects."""
        values = self.precision[iou, :, category, 0, -1]
        values = np.moveaxis(values, self._recall_axis(iou), 0).reshape(self.precision.shape[1], -1)
        defined = (values > -1).all(0)
        return values[:, defined].mean(1) if defined.any() else None

    @staticmethod
    def _recall_axis(iou: int | slice) -> int:
        return 1 if isinstance(iou, slice) else 0


def _mean(values: np.ndarray) -> float | None:
    values = values[values > -1]
    return float(values.mean()) if values.size else None
