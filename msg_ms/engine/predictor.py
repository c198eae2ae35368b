"""The interface between the prediction command and a task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL.Image import Image

TOP_K, SCORE_THR = 5, 0.3  # where the options name none


@dataclass(frozen=True)
class PredictOptions:
    """The wishes of the person who asks for predictions; None and False leave the choice to the task.

    Attributes:
        batch_size: Files at a time.
        classes: File or folder with names for the classes.
        top_k: Predictions for each file.
        score_thr: Least score of an object.
        show_messages: Whether drawings of the MSG tokens' attention are asked for.
    """

    batch_size: int | None = None
    classes: Path | None = None
    top_k: int | None = None
    score_thr: float | None = None
    show_messages: bool = False


DEFAULT_OPTIONS = PredictOptions()


@dataclass(frozen=True)
class Unreadable:
    """A file that can't be read or decoded, with the reason."""

    file: Path
    reason: str


class Prediction(Protocol):
    """The model's output for one image.

    Attributes:
        file: The image file; None for an image from memory.
    """

    @property
    def file(self) -> Path | None:
        """The image file, or None."""

    def plot(self) -> Image:
        """Return the image with the prediction drawn."""


class Predictor(Protocol):
    """Makes predictions for files, and describes them.

    Attributes:
        warnings: Lines that a person should read first.
        tile: Side in pixels of an image in a contact sheet.
    """

    warnings: Sequence[str]
    tile: int

    def predict(self, files: Sequence[Path | np.ndarray]) -> Iterator[Prediction | Unreadable]:
        """Yield one result per file, in the order of the files; an array is an image from memory, uint8 (H, W, 3)."""

    def record(self, prediction: Any) -> dict[str, Any]:
        """Return a prediction's content for JSON, without the file's name."""

    def text(self, prediction: Any) -> str:
        """Return a prediction as a line for the terminal, without the file's name."""

    def picture(self, prediction: Any) -> tuple[np.ndarray, str]:
        """Return an image for the contact sheet, uint8 RGB (H, W, 3), and its caption."""


class DrawingPredictor(Predictor, Protocol):
    """A predictor that accepts ``PredictOptions.show_messages``."""

    def drawing(self, prediction: Any) -> np.ndarray:
        """Return the drawing that ``PredictOptions.show_messages`` asks for, uint8 RGB (H, W, 3)."""
