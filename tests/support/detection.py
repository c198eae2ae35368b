"""Reference vectors for the detector: what mmdetection's code computed, read from a folder of any size and seed.

``MSG_MS_DETECTION_REFERENCE`` names the folder; the default is the committed one. A group is a pair of files
``<group>.npz`` and ``<group>.json``.
"""

from __future__ import annotations

import json
import os
import re
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

FIXTURES = Path(__file__).parents[1] / "fixtures" / "detection"
FOLDER = Path(os.environ.get("MSG_MS_DETECTION_REFERENCE") or FIXTURES).absolute()
# Relative to a tensor's largest magnitude; boxes in pixels. Masks from crops differ in a few pixels ("crop loss").
TOLERANCES = {"value": 1e-5, "gradient": 1e-4, "loss": 1e-4, "crop loss": 1e-3, "box": 1e-2}


class Vectors:
    """The arrays of one group by key, and the group's description."""

    def __init__(self, group: str, folder: Path = FOLDER):
        self.group, self.folder = group, folder

    @cached_property
    def description(self) -> dict[str, Any]:
        return json.loads((self.folder / f"{self.group}.json").read_text("utf-8"))

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        with np.load(self.folder / f"{self.group}.npz") as file:
            return dict(file)

    def __getitem__(self, key: str) -> np.ndarray:
        return self.arrays[key]

    def __contains__(self, key: str) -> bool:
        return key in self.arrays

    def numbers(self, key: str, after: str) -> list[float]:
        """Return the numbers in an array's meaning up to the next letter, after a word: settings that it states."""
        text = self.description["arrays"][key]["meaning"].partition(after)[2]
        return [float(number) for number in re.findall(r"-?\.?\d[\d.]*", re.split("[a-zA-Z]", text)[0])]

    def match(self, pattern: str) -> dict[tuple[str, ...], str]:
        """Return the keys that a regular expression matches wholly, by the expression's groups, in file order."""
        found = ((re.fullmatch(pattern, key), key) for key in self.arrays)
        return {match.groups(): key for match, key in found if match}

    def cases(self, pattern: str) -> list[tuple[str, ...]]:
        """Return the groups of ``match`` alone: the cases that this folder has."""
        return list(self.match(pattern))


@cache
def vectors(group: str) -> Vectors:
    """Return a group of the folder in use; each file is read once."""
    return Vectors(group)


def available(group: str) -> bool:
    """Return whether the folder in use has a group."""
    return (FOLDER / f"{group}.npz").exists()


@cache
def model_settings() -> dict[str, Any]:
    """Return mmdetection's configuration of the model behind the vectors."""
    return json.loads((FOLDER / "index.json").read_text("utf-8"))["model"]


class Table:
    """Errors of arrays against the vectors. ``check`` collects them and fails beyond a tolerance."""

    def __init__(self):
        self.rows: dict[str, tuple[float, float]] = {}

    def check(self, name: str, actual: Any, expected: np.ndarray, kind: str = "value") -> None:
        """Compare an array.

        Args:
            name: the line's name.
            actual: a tensor or an array.
            expected: the reference.
            kind: "value", "gradient" and "loss" are relative to the largest magnitude, "box" is in pixels, "exact"
                counts different elements.
        """
        actual = np.asarray(actual.asnumpy() if hasattr(actual, "asnumpy") else actual)
        assert actual.shape == expected.shape, (name, actual.shape, expected.shape)
        if kind == "exact":
            error, limit = float((actual != expected).sum()), 0.0
        else:
            error, limit = _difference(actual, expected), TOLERANCES[kind]
            if kind != "box":
                error /= max(float(np.abs(expected).max(initial=0)), 1e-12)
        self.rows[name] = (max(error, self.rows.get(name, (0.0, 0.0))[0]), limit)
        assert error <= limit, f"{name}: {error:.3g} > {limit:g}"

    def note(self, name: str, value: float) -> None:
        """Add a line that another assertion judges."""
        self.rows[name] = (float(value), float("nan"))

    def __str__(self) -> str:
        lines = []
        for name, (error, limit) in self.rows.items():
            lines.append(f"{name:52} {error:9.2g}" + ("" if np.isnan(limit) else f"  (limit {limit:g})"))
        return "\n".join(lines)


def _difference(actual: np.ndarray, expected: np.ndarray) -> float:
    actual, expected = np.atleast_1d(actual).astype(np.float64), np.atleast_1d(expected).astype(np.float64)
    gap = np.abs(actual - expected)
    gap[(actual == expected) | (np.isnan(actual) & np.isnan(expected))] = 0
    return float(np.nan_to_num(gap, nan=np.inf).max(initial=0))


TABLE = Table()
