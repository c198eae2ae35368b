"""The kinds of errors of a detector, and the AP that each of them costs.

The definitions are those of TIDE (Bolya et al., ECCV 2020) and its package ``tidecv``, at an IoU of 0.5.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

FOREGROUND, BACKGROUND = 0.5, 0.1  # IoU
MOST = 100  # detections of an image
NAMES = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")
CLS, LOC, BOTH, DUPE, BKG, MISS = range(6)
MEANINGS = {
    "Cls": "right place, wrong class",
    "Loc": "right class, IoU between 0.1 and 0.5",
    "Both": "wrong class and wrong place",
    "Dupe": "another detection has found the object already",
    "Bkg": "there is no object, IoU of at most 0.1",
    "Miss": "an object that no detection of the other kinds belongs to",
    "FP": "all wrong detections",
    "FN": "all objects that are not found",
}
NONE = -1
WRONG, RIGHT, IGNORED = 0, 1, 2  # states of a detection; crowds make one ignored
_RECALLS = np.arange(101) / 100


@dataclass(frozen=True)
class ImageErrors:
    """The detections of one image by falling score, n of them, and its g objects that are no crowds.

    Attributes:
        rows: Which detections these are, (n,): tidecv uses the 100 best ones.
        labels: Their classes, (n,).
        scores: Their scores, (n,).
        states: ``WRONG``, ``RIGHT`` or ``IGNORED``, (n,).
        kinds: The kinds of their errors, ``NONE`` for a right one, (n,).
        targets: The object that a detection has found, or that an error of kind Cls or Loc belongs to, else ``NONE``.
        fixable: Whether a detection would be right without its error, (n,).
        objects: Classes of the objects, (g,).
        found: Which objects have a right detection, (g,).
        missed: Which have neither this nor a fixable one, (g,).
    """

    rows: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    states: np.ndarray
    kinds: np.ndarray
    targets: np.ndarray
    fixable: np.ndarray
    objects: np.ndarray
    found: np.ndarray
    missed: np.ndarray

    def judged(self, score_thr: float) -> tuple[np.ndarray, np.ndarray]:
        """Return which objects are found (g,) and which detections are wrong (n,), with a score of at least this."""
        strong = self.scores >= score_thr
        found = np.zeros(len(self.objects), bool)
        found[self.targets[strong & (self.states == RIGHT)]] = True
        return found, strong & (self.states == WRONG)


def image_errors(truth: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]], kind: str) -> ImageErrors:
    """Compare the detections of an image with its annotations.

    Args:
        truth: The annotations, as COCO has them; masks are run lengths.
        found: The detections, as COCO's results.
        kind: ``bbox`` or ``segm``.
    """
    key = "bbox" if kind == "bbox" else "segmentation"
    scores = np.array([row["score"] for row in found], np.float64)
    rows = np.argsort(-scores, kind="stable")[:MOST]
    shapes = [found[row][key] for row in rows]
    labels = np.array([found[row]["category_id"] for row in rows], np.int64)
    objects = [row for row in truth if not row["iscrowd"]]
    crowds = [row for row in truth if row["iscrowd"]]
    classes = np.array([row["category_id"] for row in objects], np.int64)
    iou = _iou(shapes, [row[key] for row in objects], 0)
    same = labels[:, None] == classes
    targets = _match(iou * same)
    states = np.where(targets == NONE, WRONG, RIGHT)
    if crowds:
        own = labels[:, None] == np.array([row["category_id"] for row in crowds], np.int64)
        inside = ((_iou(shapes, [row[key] for row in crowds], 1) > FOREGROUND) & own).any(1)
        states[inside & (states == WRONG)] = IGNORED
    hit = np.zeros(len(classes), bool)
    hit[targets[states == RIGHT]] = True
    kinds, targets = _kinds(iou, same, hit, targets)
    fixable, usable = np.zeros(len(rows), bool), np.zeros(len(classes), bool)
    for place in np.flatnonzero((kinds == CLS) | (kinds == LOC)):
        if not hit[targets[place]] and not usable[targets[place]]:
            fixable[place] = usable[targets[place]] = True
    return ImageErrors(rows, labels, scores[rows], states, kinds, targets, fixable, classes, hit, ~(hit | usable))


def _iou(shapes: list[Any], others: list[Any], crowd: int) -> np.ndarray:
    if not shapes or not others:
        return np.zeros((len(shapes), len(others)))
    return np.asarray(coco_mask.iou(shapes, others, [crowd] * len(others)))


def _match(iou: np.ndarray) -> np.ndarray:
    """Return the object that each detection finds, ``NONE`` for none: by score, the closest one left."""
    targets, left = np.full(len(iou), NONE), iou.copy()
    if not iou.size:
        return targets
    for place in np.flatnonzero(iou.max(1) >= FOREGROUND):
        best = left[place].argmax()
        if left[place, best] >= FOREGROUND:
            targets[place] = best
            left[:, best] = 0
    return targets


def _kinds(iou: np.ndarray, same: np.ndarray, hit: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the kinds of the errors, and the targets with those of the errors."""
    wrong = targets == NONE
    if not iou.size:
        return np.where(wrong, BKG, NONE), targets
    own, other = iou * same, iou * ~same
    conditions = (
        (LOC, (own.max(1) >= BACKGROUND) & (own.max(1) <= FOREGROUND)),
        (CLS, other.max(1) >= FOREGROUND),
        (DUPE, (own * hit).max(1) >= FOREGROUND),
        (BKG, iou.max(1) <= BACKGROUND),
    )
    kinds = np.select([test for _, test in conditions], [kind for kind, _ in conditions], BOTH)
    kinds = np.where(wrong, kinds, NONE)
    closest = np.select([kinds == LOC, kinds == CLS], [own.argmax(1), other.argmax(1)], NONE)
    return kinds, np.where(wrong, closest, targets)


@dataclass(frozen=True)
class Tide:
    """The AP at an IoU of 0.5 and its increase without each kind of error, as fractions; None without any objects.

    Attributes:
        ap: The AP as tidecv defines it: classes with detections and without objects count as 0.
        gains: ``dAP`` of ``NAMES``, FP and FN.
        counts: Errors of each of ``NAMES``.
    """

    ap: float | None
    gains: dict[str, float | None]
    counts: dict[str, int]


def tide(images: Iterable[ImageErrors]) -> Tide:
    """Return the effects of the errors of many images."""
    images = list(images)
    fields = ("labels", "scores", "states", "kinds", "fixable", "objects", "found", "missed")
    empty = {"scores": np.zeros(0), "fixable": np.zeros(0, bool)}
    columns = {
        name: np.concatenate([empty.get(name, np.zeros(0, np.int64)), *(getattr(image, name) for image in images)])
        for name in fields
    }
    fixed = [np.zeros(0, np.int64)]
    for image in images:
        fixed.append(np.where(image.kinds == CLS, _take(image.objects, image.targets), image.labels))
    return _effects(columns, np.concatenate(fixed))


def _take(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the values at places, 0 where a place is ``NONE``."""
    return np.append(values, 0)[places]


def _effects(columns: dict[str, np.ndarray], fixed_labels: np.ndarray) -> Tide:
    labels, scores, kinds, states = (columns[name] for name in ("labels", "scores", "kinds", "states"))
    counted, right = states != IGNORED, states == RIGHT
    objects, missed = columns["objects"], columns["missed"].astype(bool)
    ap = mean_ap(labels[counted], scores[counted], right[counted], objects)
    # tidecv lists errors before right detections, which decides between equal scores.
    order = np.concatenate([np.flatnonzero(~right), np.flatnonzero(right)])
    labels, scores, kinds, right, counted = (values[order] for values in (labels, scores, kinds, right, counted))
    fixable, fixed_labels = columns["fixable"].astype(bool)[order], fixed_labels[order]
    gains: dict[str, float | None] = {}
    for kind, name in enumerate(NAMES):
        chosen = kinds == kind
        kept = np.where(chosen, fixable, counted)
        better = mean_ap(
            np.where(chosen, fixed_labels, labels)[kept],
            scores[kept],
            (right | chosen)[kept],
            objects[~missed] if kind == MISS else objects,
        )
        gains[name] = None if ap is None else max((better or 0) - ap, 0.0)
    without_fp = mean_ap(labels[counted], right[counted].astype(float), right[counted], objects)
    without_fn = mean_ap(labels[counted], scores[counted], right[counted], objects[columns["found"].astype(bool)])
    for name, value in (("FP", without_fp), ("FN", without_fn)):
        gains[name] = None if ap is None else (value or 0) - ap
    counts = {name: int((kinds == kind).sum()) for kind, name in enumerate(NAMES)} | {"Miss": int(missed.sum())}
    return Tide(ap, gains, counts)


def mean_ap(labels: np.ndarray, scores: np.ndarray, right: np.ndarray, objects: np.ndarray) -> float | None:
    """Return the mean over the classes with detections or objects of their AP; None if there are none.

    Args:
        labels: Classes of the detections, (N,).
        scores: Their scores, (N,); of equal ones the first counts first.
        right: Which of them are right, bool (N,).
        objects: Classes of the objects, (G,).
    """
    classes = np.union1d(labels, objects)
    order = np.lexsort((-scores, labels))
    labels, right, objects = labels[order], right[order], np.sort(objects)
    edges = np.searchsorted(labels, classes), np.searchsorted(labels, classes, "right")
    totals = np.searchsorted(objects, classes, "right") - np.searchsorted(objects, classes)
    aps = [_ap(right[begin:end], total) for begin, end, total in zip(*edges, totals, strict=True)]
    return float(np.mean(aps)) if aps else None


def _ap(right: np.ndarray, total: int) -> float:
    """Return the AP of one class, whose detections are in the order of their scores: COCO's, at one IoU."""
    if not total or not len(right):
        return 0.0
    hits = np.cumsum(right)
    precisions = np.maximum.accumulate((hits / np.arange(1, len(hits) + 1))[::-1])[::-1]
    places = np.searchsorted(hits / total, _RECALLS)
    return float(np.append(precisions, 0)[np.minimum(places, len(precisions))].mean())
