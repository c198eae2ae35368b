"""Confusions and calibration against scikit-learn."""

import numpy as np
import pytest
from sklearn import calibration as sk_calibration
from sklearn import metrics as sk

from msg_ms.report.calibration import BINS, calibration
from msg_ms.report.confusion import class_scores, confused_pairs, confusion_matrix, most_confused, part_of


@pytest.fixture(scope="module")
def drawn():
    """Labels and predictions of 7 classes, of which the last has no images, and the one before is never predicted."""
    draws = np.random.RandomState(0)
    labels = draws.randint(0, 6, 500)
    predicted = np.where(draws.rand(500) < 0.6, labels, draws.randint(0, 7, 500))
    return labels, np.where(predicted == 5, 0, predicted)


@pytest.mark.filterwarnings("ignore:y_pred contains classes")
def test_the_matrix_and_the_scores_are_scikit_learns(drawn):
    labels, predicted = drawn
    matrix = confusion_matrix(labels, predicted, 7)
    np.testing.assert_array_equal(matrix, sk.confusion_matrix(labels, predicted, labels=range(7)))
    scores = class_scores(matrix)
    expected = sk.precision_recall_fscore_support(labels, predicted, labels=range(7), zero_division=np.nan)
    for own, value in zip((scores.precision, scores.recall, scores.f1), expected, strict=False):
        np.testing.assert_allclose(own, value, rtol=1e-12)
    assert np.isnan(scores.recall[6]) and np.isnan(scores.precision[5]) and scores.f1[5] == 0
    assert np.nanmean(scores.recall) == pytest.approx(sk.balanced_accuracy_score(labels, predicted))


def test_pairs_are_ordered_by_their_number(drawn):
    matrix = confusion_matrix(*drawn, 7)
    pairs = confused_pairs(matrix)
    assert (np.diff(pairs[:, 2]) <= 0).all() and pairs[:, 2].sum() == (drawn[0] != drawn[1]).sum()
    assert all(matrix[true, wrong] == count and true != wrong for true, wrong, count in pairs)
    assert not len(confused_pairs(np.diag([3, 4])))


def test_a_part_of_the_matrix_keeps_the_sums_of_its_rows():
    draws = np.random.RandomState(1)
    matrix = draws.randint(0, 3, (50, 50))
    matrix[[7, 30], 8] += 1000
    chosen = most_confused(matrix, 3)
    assert chosen.tolist() == [7, 8, 30]
    part = part_of(matrix, chosen)
    assert part.shape == (3, 4) and (part.sum(1) == matrix[chosen].sum(1)).all() and part[0, 1] == matrix[7, 8]


def test_the_reliability_diagram_is_scikit_learns():
    draws = np.random.RandomState(2)
    confidence = np.concatenate([draws.rand(400), [0.0, 1.0, 1 / BINS, 3 / BINS]]).astype(np.float32)
    right = draws.rand(404) < confidence**2
    found = calibration(confidence, right)
    accuracy, mean = sk_calibration.calibration_curve(right, confidence, n_bins=BINS)
    np.testing.assert_allclose(found.accuracy[found.counts > 0], accuracy, rtol=1e-12)
    np.testing.assert_allclose(found.confidence[found.counts > 0], mean, rtol=1e-6)
    assert found.counts.sum() == 404
    # The sum over single predictions of the distance in their bin.
    places = np.minimum(np.ceil(confidence.astype(float) * BINS - 1e-6).astype(int) - 1, BINS - 1).clip(0)
    gaps = [abs(confidence[places == b].mean(dtype=float) - right[places == b].mean()) for b in places]
    assert found.ece == pytest.approx(np.mean(gaps)) and found.mce == pytest.approx(max(gaps))


def test_certain_and_right_predictions_have_no_error():
    found = calibration(np.ones(5), np.ones(5, bool))
    assert found.ece == found.mce == 0 and found.counts[-1] == 5
