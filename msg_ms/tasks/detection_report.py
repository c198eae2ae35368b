"""The report on a detector: precision and recall, AP by size and class, the kinds of errors, the worst images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..engine.predictor import SCORE_THR
from ..engine.task import Metrics
from ..report import Column, Report, Section, Table, tide
from ..report.average_precision import COLUMNS, FORMAT, IOUS, RECALLS
from ..report.charts import bar_chart, curve_chart
from .coco_evaluator import KINDS, CocoEvaluator
from .detection_examples import worst_images

CURVES = 10  # classes with a precision-recall curve on the page
AVERAGE = "0.50 to 0.95"
EFFECTS = (*tide.NAMES, "FP", "FN")


def detection_report(evaluator: CocoEvaluator, metrics: Metrics) -> Report:
    """Return the report on an evaluation, on rank 0 after ``compute``."""
    errors = {kind: errors_of(evaluator, kind) for kind in evaluator.accumulated}
    effects = {kind: tide.tide(images) for kind, images in errors.items()}
    classes = {kind: class_table(evaluator, kind) for kind in evaluator.accumulated}
    sizes, kinds = size_table(evaluator), error_table(effects)
    by_class = errors_per_class(evaluator, errors["bbox"])
    sections = (
        Section("AP by size", [f"{_SIZES} AR is the recall with {tide.MOST} detections per image."], table=sizes),
        _curves(evaluator),
        *(
            Section(f"Classes: {KINDS[kind]} AP", ["The class with the lowest AP comes first."], table=table)
            for kind, table in classes.items()
        ),
        _errors(effects, kinds),
        Section(
            "Errors by class",
            [
                f"Detections with a score of at least {SCORE_THR:g}, by their boxes. Errors of the kinds Cls to Bkg "
                "belong to the class of the detection, Miss to that of the object that no such detection has found."
            ],
            table=by_class,
        ),
        worst_images(evaluator, errors["bbox"]),
    )
    tables = (sizes, *classes.values(), kinds, by_class, curve_table(evaluator))
    return Report("Evaluation of a detector", metrics.rows(), sections, tables)


_SIZES = "Objects are small below an area of 32 x 32 pixels and large from 96 x 96 pixels."


def errors_of(evaluator: CocoEvaluator, kind: str) -> list[tide.ImageErrors]:
    """Return the errors in each image, in the order of the data set, by boxes or by masks."""
    truth = evaluator.truth
    assert truth is not None  # check_outputs has refused files without annotations
    found: dict[int, list[dict[str, Any]]] = {}
    for row in evaluator.results:
        found.setdefault(row["image_id"], []).append(row)
    ids = evaluator.split.image_ids.tolist()
    return [tide.image_errors(truth.imgToAnns.get(number, []), found.get(number, []), kind) for number in ids]


def class_rows(evaluator: CocoEvaluator) -> list[tuple[int, str, int]]:
    """Return the place of each class in pycocotools' arrays, its name and COCO's id."""
    split = evaluator.split
    return [
        (evaluator.categories.index(category), name, category)
        for category, name in zip(split.category_ids, split.class_names, strict=True)
    ]


def class_table(evaluator: CocoEvaluator, kind: str) -> Table:
    """Return the AP of each class, the lowest first; classes without objects come last."""
    assert evaluator.split.truth is not None
    found = evaluator.accumulated[kind]
    objects = evaluator.split.truth.objects(len(evaluator.split.class_names)).tolist()
    rows = [
        (category, name, count, *found.row(place))
        for (place, name, category), count in zip(class_rows(evaluator), objects, strict=True)
    ]
    rows.sort(key=lambda row: 2.0 if row[3] is None else row[3])
    columns = Column("category_id", "category"), Column("class"), Column("objects"), *COLUMNS
    return Table(f"per_class_{KINDS[kind]}", columns, rows)


def size_table(evaluator: CocoEvaluator) -> Table:
    """Return the AP by size and IoU over all classes."""
    rows = [(KINDS[kind], *found.row()) for kind, found in evaluator.accumulated.items()]
    return Table("sizes", (Column("kind", " "), *COLUMNS), rows)


def curve_table(evaluator: CocoEvaluator) -> Table:
    """Return the precision at each recall: of all classes at each IoU of the charts, of each class at IoU 0.50."""
    rows: list[tuple[Any, ...]] = []
    for kind, found in evaluator.accumulated.items():
        curves: list[tuple[tuple[Any, ...], np.ndarray | None]] = []
        for title, iou in _thresholds().items():
            curves.append(((None, "all classes", title), found.curve(iou=iou)))
        for place, name, category in class_rows(evaluator):
            curves.append(((category, name, "0.50"), found.curve(place, 0)))
        for own, curve in curves:
            values = [] if curve is None else zip(RECALLS.tolist(), curve.tolist(), strict=True)
            rows += [(KINDS[kind], *own, recall, precision) for recall, precision in values]
    keys = "kind", "category_id", "class", "iou", "recall", "precision"
    return Table("curves", [Column(key) for key in keys], rows, in_json=False)


def _thresholds() -> dict[str, int | slice]:
    return {**{f"0.{name}": place for name, place in IOUS.items()}, AVERAGE: slice(None)}


def _curves(evaluator: CocoEvaluator) -> Section:
    charts, lines = [], ["The precision at each recall is the mean over the classes; the area below it is the AP."]
    rows = class_rows(evaluator)
    for kind, found in evaluator.accumulated.items():
        word = KINDS[kind]
        chosen = sorted(rows, key=lambda row: _or(found.ap(row[0], iou=0), 2.0))[:CURVES]
        own = {f"{_score(found.ap(place, iou=0))} {name}": found.curve(place, 0) for place, name, _ in chosen}
        panels = {
            f"{word}, all classes": {
                f"{_score(found.ap(iou=iou))} at IoU {name}": found.curve(iou=iou)
                for name, iou in _thresholds().items()
            },
            f"{word}, classes at IoU 0.50": own,
        }
        drawn = {t: {n: c for n, c in curves.items() if c is not None} for t, curves in panels.items()}
        words = f"Precision-recall curves of {word} detection, of all classes and of single ones"
        charts.append(curve_chart(drawn, RECALLS, ("recall", "precision"), words))
    if len(rows) > CURVES:
        lines.append(
            f"Of {len(rows)} classes, the {CURVES} with the lowest AP at IoU 0.50 are drawn; curves.csv has all."
        )
    return Section("Precision and recall", lines, charts)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _score(value: float | None) -> str:
    return "undefined" if value is None else FORMAT.format(value)


def error_table(effects: dict[str, tide.Tide]) -> Table:
    """Return counts and dAP of each kind of error."""
    columns = [Column("error"), Column("meaning")]
    for kind in effects:
        word = KINDS[kind]
        columns += [Column(f"{word}_count", f"{word} errors"), Column(f"{word}_dAP", f"{word} dAP", FORMAT)]
    rows: list[list[Any]] = [[name, tide.MEANINGS[name]] for name in EFFECTS]
    for row in rows:
        for found in effects.values():
            row += [found.counts.get(row[0]), found.gains[row[0]]]
    return Table("errors", columns, rows)


def _errors(effects: dict[str, tide.Tide], table: Table) -> Section:
    aps = ", ".join(f"{KINDS[kind]} AP50 {_score(found.ap)}" for kind, found in effects.items())
    lines = (
        "The kinds are TIDE's, at an IoU of 0.50. dAP is the AP50 that the detector would gain without the errors of "
        f"a kind; the gains don't add up. The {tide.MOST} detections of an image with the highest scores count.",
        f"TIDE's own AP ({aps}) counts classes with detections and without objects as 0.",
    )
    charts = [
        bar_chart(
            EFFECTS, [_or(found.gains[name], 0.0) for name in EFFECTS], f"dAP, {KINDS[kind]}", f"{KINDS[kind]} dAP"
        )
        for kind, found in effects.items()
    ]
    return Section("Kinds of errors", lines, charts, table)


def errors_per_class(evaluator: CocoEvaluator, images: Sequence[tide.ImageErrors]) -> Table:
    """Return the numbers of objects, of found objects and of errors of each class, the most errors first."""
    ids = np.array(evaluator.split.category_ids, np.int64)
    order = np.argsort(ids)
    counts: Any = np.zeros((len(ids), 2 + len(tide.NAMES)), np.int64)

    def add(categories: np.ndarray, columns: Any) -> None:
        np.add.at(counts, (order[np.searchsorted(ids, categories, sorter=order)], columns), 1)

    for image in images:
        found, wrong = image.judged(SCORE_THR)
        add(image.objects, 0)
        add(image.objects[found], 1)
        add(image.objects[~found], 2 + tide.MISS)
        add(image.labels[wrong], 2 + image.kinds[wrong])
    rows = [(name, *own) for name, own in zip(evaluator.split.class_names, counts.tolist(), strict=True)]
    rows.sort(key=lambda row: -sum(row[3:]))
    columns = Column("class"), Column("objects"), Column("found"), *map(Column, tide.NAMES)
    return Table("errors_per_class", columns, rows)
