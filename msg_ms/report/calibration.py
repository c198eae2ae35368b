"""How far a classifier's probabilities are from its accuracy (Guo et al., ICML 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .confusion import ratio

BINS = 15


@dataclass(frozen=True)
class Calibration:
    """Predictions in bins of equal width by their confidence, the probability of the predicted class.

    Attributes:
        edges: Of the bins, (BINS + 1,); a bin includes its upper edge.
        counts: Predictions in each bin, int64 (BINS,).
        confidence: Mean confidence of each bin, (BINS,); NaN for an empty one.
        accuracy: Share of right predictions in each bin, (BINS,); NaN for an empty one.
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def gaps(self) -> np.ndarray:
        """Distance of confidence and accuracy in each bin, 0 for an empty one, (BINS,)."""
        return np.nan_to_num(np.abs(self.confidence - self.accuracy))

    @property
    def ece(self) -> float:
        """The expected calibration error: the mean of the gaps, weighted by the counts."""
        return float((self.gaps * self.counts).sum() / max(1, self.counts.sum()))

    @property
    def mce(self) -> float:
        """The maximum calibration error: the largest gap."""
        return float(self.gaps.max())


def calibration(confidence: np.ndarray, right: np.ndarray) -> Calibration:
    """Return the calibration of predictions.

    Args:
        confidence: Probability of each predicted class, (N,).
        right: Which predictions are right, bool (N,).
    """
    edges = np.linspace(0, 1, BINS + 1)
    places = np.searchsorted(edges[1:-1], confidence)
    counts, sums, rights = (
        np.bincount(places, weights, BINS)
        for weights in (None, confidence.astype(np.float64), right.astype(np.float64))
    )
    return Calibration(edges, counts, ratio(sums, counts), ratio(rights, counts))
