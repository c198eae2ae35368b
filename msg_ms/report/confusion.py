"""Which classes a classifier confuses; every number follows from the confusion matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return the number of images of each true class (row) and predicted class (column), int64 (classes, classes)."""
    cells = labels.astype(np.int64) * classes + predicted
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


@dataclass(frozen=True)
class ClassScores:
    """Scores of each class, float64 (classes,); NaN where there is nothing to divide by.

    Attributes:
        precision: Share of the images with this prediction that have this class.
        recall: Share of the images with this class that have this prediction; the accuracy of the class.
        f1: Harmonic mean of both.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


def class_scores(matrix: np.ndarray) -> ClassScores:
    """Return the scores of the classes of a confusion matrix."""
    right, true, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    return ClassScores(ratio(right, predicted), ratio(right, true), ratio(2 * right, true + predicted))


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return a quotient, NaN where the divisor is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) != 0)


def confused_pairs(matrix: np.ndarray) -> np.ndarray:
    """Return true class, predicted class and count of all wrong cells, (n, 3), the most frequent first."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    rows, columns = np.nonzero(wrong)
    counts = wrong[rows, columns]
    order = np.lexsort((columns, rows, -counts))
    return np.stack([rows, columns, counts], 1)[order]


def most_confused(matrix: np.ndarray, count: int) -> np.ndarray:
    """Return the ``count`` classes with the most errors, as true or predicted class, by their number."""
    errors = matrix.sum(0) + matrix.sum(1) - 2 * np.diag(matrix)
    return np.sort(np.argsort(-errors, kind="stable")[:count])


def part_of(matrix: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return the rows of some classes, with a last column for the predictions of all others."""
    rows = matrix[chosen]
    part = rows[:, chosen]
    return np.concatenate([part, rows.sum(1, keepdims=True) - part.sum(1, keepdims=True)], 1)
