"""The kinds of errors are those of the package tidecv, also where scores are equal and crowds hide detections."""

import json

import numpy as np
import pytest
from support.random_tide import FIXTURE, KINDS, SEEDS, by_tidecv, random_data

from msg_ms.report.tide import BKG, CLS, DUPE, LOC, MISS, NAMES, image_errors, mean_ap, tide


def numbers(seed, kind):
    """Return our numbers in tidecv's form."""
    images, truth, found = random_data(seed)
    rows = [[[row for row in part if row["image_id"] == image] for part in (truth, found)] for image in images]
    result = tide(image_errors(*own, kind) for own in rows)
    if result.ap is None:
        return None
    gains = {name: 100 * gain for name, gain in result.gains.items()}
    return {"ap": 100 * result.ap, "gains": gains, "counts": result.counts}


def check(own, expected):
    if expected is not None:
        assert own["counts"] == expected["counts"]
        assert own["gains"] == pytest.approx(expected["gains"], abs=1e-9)
        assert own["ap"] == pytest.approx(expected["ap"], abs=1e-9)


def test_the_numbers_are_those_that_tidecv_computed():
    stored = json.loads(FIXTURE.read_text("utf-8"))
    assert len(stored) == len(SEEDS)
    totals = dict.fromkeys(NAMES, 0)
    for seed, own in zip(SEEDS, stored, strict=True):
        for kind in KINDS:
            check(numbers(seed, kind), own[kind])
            for name, count in (own[kind] or {"counts": {}})["counts"].items():
                totals[name] += count
    assert min(totals.values()) > 10  # every kind occurs


def test_the_numbers_are_those_of_an_installed_tidecv():
    pytest.importorskip("tidecv")
    for seed in range(1000, 1020):
        for kind in KINDS:
            check(numbers(seed, kind), by_tidecv(seed, kind))


def box(x, category=1, **values):
    return {"bbox": [x, 0, 10, 10], "category_id": category, "iscrowd": 0, **values}


@pytest.mark.parametrize(
    ("detections", "kinds", "missed"),
    [
        ([box(0, score=0.9)], [-1], 0),
        ([box(0, score=0.9), box(1, score=0.8)], [-1, DUPE], 0),
        ([box(0, 2, score=0.9)], [CLS], 0),
        ([box(4.5, score=0.9)], [LOC], 0),
        ([box(4.5, 2, score=0.9)], [NAMES.index("Both")], 1),
        ([box(50, score=0.9)], [BKG], 1),
        ([], [], 1),
    ],
)
def test_one_object_and_each_kind_of_error(detections, kinds, missed):
    errors = image_errors([box(0)], detections, "bbox")
    assert errors.kinds.tolist() == kinds and errors.missed.sum() == missed
    assert tide([errors]).counts[NAMES[MISS]] == missed


def test_a_crowd_hides_detections_and_is_no_object():
    crowd = {**box(0), "iscrowd": 1}
    errors = image_errors([crowd], [box(0, score=0.9), box(50, score=0.8)], "bbox")
    assert errors.states.tolist() == [2, 0] and not len(errors.objects)
    found, wrong = errors.judged(0.5)
    assert not len(found) and wrong.tolist() == [False, True]


def test_the_best_hundred_detections_count():
    errors = image_errors([box(0)], [box(200, score=0.5)] * 100 + [box(0, score=0.4)], "bbox")
    assert len(errors.rows) == 100 and errors.missed.all()


def test_the_ap_of_known_detections():
    # Of three objects two are found: precision 1 up to recall 1/3 (34 of 101 recalls), 2/3 up to 2/3 (33 more).
    labels, right = np.zeros(3, int), np.array([True, False, True])
    assert mean_ap(labels, np.array([0.9, 0.8, 0.7]), right, np.zeros(3, int)) == pytest.approx((34 + 33 * 2 / 3) / 101)
    assert mean_ap(labels[:0], np.zeros(0), right[:0], labels[:0]) is None
