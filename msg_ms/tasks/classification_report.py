"""The report on a classifier: accuracies by class, confusions, calibration and the worst images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..data.images.class_names import ClassName
from ..data.pixels.image_files import BadFiles
from ..engine.task import Metrics
from ..files import readable
from ..report import Column, Image, Report, Section, Table
from ..report.calibration import BINS, Calibration, calibration
from ..report.charts import matrix_chart, reliability_chart
from ..report.confusion import class_scores, confused_pairs, confusion_matrix, most_confused, part_of
from ..report.images import jpeg
from ..visualize.contact_sheet import as_tile
from .classes import class_record
from .classification_evaluator import DetailedEvaluator
from .classification_results import Predicted

MOST_CLASSES = 30  # of the drawn confusion matrix
PAIRS, WORST = 20, 40  # on the page
PERCENT, FRACTION = "{:.2f}%", "{:.3f}"
NAMED = (Column("class"), Column("name"))


def classification_report(evaluator: DetailedEvaluator, metrics: Metrics) -> Report:
    """Return the report on an evaluation, on rank 0 after ``compute``."""
    predicted, names = evaluator.predicted, evaluator.names
    matrix = confusion_matrix(predicted.labels, predicted.best[:, 0], len(names))
    confidence = calibration(predicted.probabilities[:, 0], predicted.right)
    classes, pairs, bins = class_table(predicted, matrix, names), pair_table(matrix, names), bin_table(confidence)
    balanced = float(np.nanmean(class_scores(matrix).recall))
    further = (
        ("balanced", "balanced accuracy", 100 * balanced, PERCENT.format(100 * balanced)),
        ("ece", "ECE", confidence.ece, FRACTION.format(confidence.ece)),
        ("mce", "MCE", confidence.mce, FRACTION.format(confidence.mce)),
    )
    sections = (
        _confusion(matrix, names),
        Section("Most confused pairs", table=pairs, rows_shown=PAIRS, text=_more(pairs, PAIRS)),
        Section("Classes", ["The class with the lowest accuracy comes first."], table=classes),
        _calibration(confidence),
        _worst(evaluator),
    )
    return Report(
        "Evaluation of a classifier",
        (*metrics.rows(), *further),
        sections,
        (classes, pairs, bins, cells(matrix, names)),
    )


def class_table(predicted: Predicted, matrix: np.ndarray, names: Sequence[ClassName]) -> Table:
    """Return the scores of each class, the lowest accuracy first; classes without images come last."""
    scores, totals = class_scores(matrix), matrix.sum(1)
    hits, losses = (
        np.bincount(predicted.labels, values.astype(np.float64), len(names))
        for values in (predicted.near, predicted.losses)
    )
    rows: list[tuple[Any, ...]] = []
    for label in np.lexsort((np.arange(len(names)), np.nan_to_num(scores.recall, nan=2.0))).tolist():
        total = int(totals[label])
        means = (100 * float(hits[label]) / total, float(losses[label]) / total) if total else (None, None)
        values = [float(score[label]) for score in (scores.precision, scores.recall, scores.f1)]
        precision, recall, f1 = (None if np.isnan(value) else value for value in values)
        own = class_record(names, label)
        top1 = None if recall is None else 100 * recall
        rows.append((label, own["class"], own["name"], total, top1, means[0], precision, f1, means[1]))
    numbers = (
        *(Column("images"), Column("top1", "top-1", PERCENT), Column("top5", "top-5", PERCENT)),
        *(Column("precision", format=FRACTION), Column("f1", "F1", FRACTION), Column("loss", format=FRACTION)),
    )
    return Table("per_class", (Column("label"), *NAMED, *numbers), rows)


def pair_table(matrix: np.ndarray, names: Sequence[ClassName]) -> Table:
    """Return the pairs of a true and a wrong class, the most frequent first."""
    totals = matrix.sum(1)
    rows = [
        (names[true].name, names[wrong].name, count, 100 * count / int(totals[true]))
        for true, wrong, count in confused_pairs(matrix).tolist()
    ]
    columns = Column("true", "true class"), Column("predicted", "predicted class"), Column("count", "images")
    return Table("confused_pairs", (*columns, Column("share", "share of the true class", PERCENT)), rows)


def cells(matrix: np.ndarray, names: Sequence[ClassName]) -> Table:
    """Return the confusion matrix as a list of its cells that are not 0, at most one for each image."""
    rows = [
        (true, names[true].folder, predicted, names[predicted].folder, int(matrix[true, predicted]))
        for true, predicted in np.argwhere(matrix).tolist()
    ]
    keys = "true_label", "true_class", "predicted_label", "predicted_class", "count"
    return Table("confusion", [Column(key) for key in keys], rows, in_json=False)


def bin_table(found: Calibration) -> Table:
    """Return the bins of the reliability diagram."""
    columns = found.edges[:-1], found.edges[1:], found.counts, found.confidence, found.accuracy
    keys = "above", "up_to", "images", "confidence", "accuracy"
    return Table("calibration", [Column(key) for key in keys], list(zip(*(c.tolist() for c in columns), strict=True)))


def _confusion(matrix: np.ndarray, names: Sequence[ClassName]) -> Section:
    count = len(matrix)
    texts = [name.short for name in names]
    lines = ["A row is a true class, a column a predicted one. The colour is the share of the true class."]
    if count <= MOST_CLASSES:
        picture = matrix_chart(matrix, texts, texts, f"Confusion matrix of {count} classes")
    else:
        chosen = most_confused(matrix, MOST_CLASSES)
        rows = [texts[label] for label in chosen]
        title = f"Confusion matrix of the {MOST_CLASSES} classes of {count} with the most errors"
        picture = matrix_chart(part_of(matrix, chosen), rows, [*rows, "all others"], title)
        lines.append(f"These are the {MOST_CLASSES} classes of {count} with the most errors; confusion.csv has all.")
    return Section("Confusion matrix", lines, [picture])


def _calibration(found: Calibration) -> Section:
    lines = (
        f"ECE {found.ece:.4f}: the mean distance of confidence and accuracy in {BINS} bins, weighted by their images. "
        f"MCE {found.mce:.4f}: the largest distance.",
        "Bars below the dashed line are bins whose confidence is too high, bars above it those whose confidence is too "
        "low.",
    )
    return Section(
        "Calibration", lines, [reliability_chart(found.edges, found.confidence, found.accuracy, found.counts)]
    )


def _worst(evaluator: DetailedEvaluator) -> Section:
    """Return the wrong predictions of the highest loss as a contact sheet."""
    predicted, names = evaluator.predicted, evaluator.names
    wrong = np.flatnonzero(~predicted.right)
    chosen = wrong[np.argsort(-predicted.losses[wrong], kind="stable")[:WORST]]
    images = []
    for row in chosen.tolist():
        label, guess = int(predicted.labels[row]), int(predicted.best[row, 0])
        lines = (
            readable(evaluator.folder.files.name(int(predicted.index[row]))),
            f"true: {names[label].short}, {np.exp(-predicted.losses[row]):.1%}",
            f"predicted: {names[guess].short}, {predicted.probabilities[row, 0]:.1%}",
        )
        images.append([_tile(evaluator, int(predicted.index[row]), lines)])
    text = f"{len(wrong)} of {len(predicted.labels)} images have a wrong prediction."
    more = f" These {len(images)} give their true class the lowest probabilities." if images else ""
    return Section("Worst images", [text + more], images=images)


def _tile(evaluator: DetailedEvaluator, index: int, lines: Sequence[str]) -> Image:
    bad = BadFiles(limit=0)
    pixels = evaluator.folder.decode(index, bad)
    if pixels is None:  # it was there during evaluation
        return jpeg(np.full((152, 152, 3), 200, np.uint8), *lines, "the file can't be read any more")
    return jpeg(as_tile(pixels), *lines)


def _more(table: Table, shown: int) -> list[str]:
    total = len(table.rows)
    if not total:
        return ["There are none: all predictions are right."]
    return [f"The {shown} most frequent of {total}; {table.name}.csv has all."] if total > shown else []
