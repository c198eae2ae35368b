"""The predictions for every evaluated image, and their file: JSON or CSV."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data import ImageFolder
from ..data.images.class_names import ClassName
from ..files import atomic_write, readable
from ..report.tables import write_csv
from .classes import class_record
from .result_files import check_results, list_begins_with

TOP = 5  # predictions of an image
COLUMNS = ("file", "label", "class", "loss")
RESULT_KEYS = {*COLUMNS, "name", "predictions"}


@dataclass(frozen=True, eq=False)
class Predicted:
    """The predictions for N images, in the order of the data set.

    Attributes:
        index: Number of each image in the data set, int32 (N,).
        labels: True classes, int32 (N,).
        losses: Cross entropy, float32 (N,).
        best: The most probable classes, int32 (N, guesses).
        probabilities: Theirs, float32 (N, guesses).
    """

    index: np.ndarray
    labels: np.ndarray
    losses: np.ndarray
    best: np.ndarray
    probabilities: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """Which images have their class as the most probable one, bool (N,)."""
        return self.best[:, 0] == self.labels

    @property
    def near(self) -> np.ndarray:
        """Which images have their class among the most probable ones, bool (N,)."""
        return (self.best == self.labels[:, None]).any(1)

    def to_bytes(self) -> bytes:
        """Return everything as bytes."""
        stream = io.BytesIO()
        np.savez_compressed(stream, **vars(self))
        return stream.getvalue()

    @classmethod
    def joined(cls, parts: Iterable[Predicted]) -> Predicted:
        """Return the predictions of several parts in the order of the data set."""
        parts = list(parts)
        arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in cls.__annotations__}
        order = np.argsort(arrays["index"], kind="stable")
        return cls(**{name: values[order] for name, values in arrays.items()})

    @classmethod
    def from_bytes(cls, data: bytes) -> Predicted:
        """Return the predictions of ``to_bytes``."""
        with np.load(io.BytesIO(data)) as content:
            return cls(**content)


def check_predictions(path: Path) -> None:
    """Raise UserError if a file of predictions can't be written, or exists and is not one."""
    if path.suffix.lower() == ".csv":
        is_ours = _csv_is_ours
    else:

        def is_ours(text: str) -> bool:
            return list_begins_with(text, lambda row: row.keys() == RESULT_KEYS)

    check_results(path, (".json", ".csv"), is_ours, "predictions of this program")


def _csv_is_ours(text: str) -> bool:
    return text.startswith(",".join(_header(1)))


def _header(guesses: int) -> list[str]:
    return [*COLUMNS, *(f"top{i}_{key}" for i in range(1, guesses + 1) for key in ("label", "class", "probability"))]


def write_predictions(path: Path, predicted: Predicted, folder: ImageFolder, names: Sequence[ClassName]) -> None:
    """Write a record for each image, in the order of the data set; files are paths below the folder of the images."""
    with atomic_write(path) as temporary:
        if path.suffix.lower() == ".csv":
            rows = (_row(record) for record in _records(predicted, folder, names))
            write_csv(temporary, _header(predicted.best.shape[1]), rows)
            return
        with temporary.open("w", encoding="utf-8") as file:
            lines = (json.dumps(record, ensure_ascii=False) for record in _records(predicted, folder, names))
            file.write("[" + next(lines, ""))
            file.writelines(f",\n{line}" for line in lines)
            file.write("]\n")


def _row(record: dict[str, Any]) -> list[Any]:
    row = [record[key] for key in COLUMNS]
    for guess in record["predictions"]:
        row += [guess["label"], guess["class"], guess["probability"]]
    return row


def _records(predicted: Predicted, folder: ImageFolder, names: Sequence[ClassName]) -> Iterator[dict[str, Any]]:
    columns = predicted.index, predicted.labels, predicted.losses, predicted.best, predicted.probabilities
    for index, label, loss, best, probabilities in zip(*(values.tolist() for values in columns), strict=True):
        guesses = [
            {**class_record(names, guess), "probability": probability}
            for guess, probability in zip(best, probabilities, strict=True)
        ]
        file = readable(folder.files.name(index))
        yield {"file": file, **class_record(names, label), "loss": loss, "predictions": guesses}
