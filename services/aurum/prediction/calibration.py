"""From scores to probabilities, from residuals to intervals, and how good both are."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression

Floats = npt.NDArray[np.float64]
_BINS = 5  # of predictions, each with residual quantiles of its own
_KNOTS = 60  # most points of a calibration curve that are kept


@dataclass(frozen=True, slots=True)
class RiskCalibration:
    """A monotone piecewise linear map from scores to probabilities."""

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]

    def __call__(self, scores: Floats) -> Floats:
        return np.interp(scores, self.scores, self.probabilities)


def calibrate_risk(scores: Floats, outcomes: npt.NDArray[np.bool_]) -> RiskCalibration:
    """Isotonic regression of outcomes (pool adjacent violators; Zadrozny and Elkan, 2002) on held-out scores."""
    order = np.argsort(scores, kind="stable")
    fitted = np.asarray(isotonic_regression(outcomes[order].astype(np.float64)).x)
    sorted_scores = scores[order]
    edges = np.flatnonzero(np.append(True, np.diff(fitted) > 1e-9))
    ends = np.append(edges[1:], len(fitted))
    knots = [(float(sorted_scores[a:b].mean()), float(fitted[a]), int(b - a)) for a, b in zip(edges, ends, strict=True)]
    while len(knots) > _KNOTS:  # merge the neighbours that hold the fewest rows
        lightest = min(range(len(knots) - 1), key=lambda index: knots[index][2] + knots[index + 1][2])
        (score, probability, weight), (score2, probability2, weight2) = knots[lightest : lightest + 2]
        total = weight + weight2
        knots[lightest : lightest + 2] = [
            (
                (score * weight + score2 * weight2) / total,
                (probability * weight + probability2 * weight2) / total,
                total,
            )
        ]
    # Half a positive and half a negative more in each block: no finite sample shows that a risk is 0 or 1.
    smoothed = [(probability * weight + 0.5) / (weight + 1) for _, probability, weight in knots]
    probabilities = np.maximum.accumulate(smoothed).tolist()
    return RiskCalibration(tuple(knot[0] for knot in knots), tuple(probabilities))


@dataclass(frozen=True, slots=True)
class IntervalCalibration:
    """Residual quantiles by the size of the prediction. edges: between the bins; one lower and upper each."""

    edges: tuple[float, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]

    def __call__(self, predictions: Floats) -> tuple[Floats, Floats]:
        bins = np.searchsorted(self.edges, predictions, side="right")
        low = np.maximum(0.0, predictions + np.array(self.lower)[bins])
        return low, np.maximum(low, predictions + np.array(self.upper)[bins])


def calibrate_interval(predictions: Floats, truths: Floats, coverage: float) -> IntervalCalibration:
    """Split conformal intervals (Papadopoulos et al., 2002) from held-out residuals, by bins of the prediction."""
    edges = np.unique(np.quantile(predictions, np.linspace(0, 1, _BINS + 1)[1:-1]))
    bins = np.searchsorted(edges, predictions, side="right")
    tail = (1 - coverage) / 2
    lower, upper = [], []
    for index in range(len(edges) + 1):
        residuals = np.sort((truths - predictions)[bins == index])
        if not len(residuals):
            residuals = np.sort(truths - predictions)
        count = len(residuals)
        lower.append(float(residuals[max(0, int(np.floor((count + 1) * tail)) - 1)]))
        upper.append(float(residuals[min(count - 1, int(np.ceil((count + 1) * (1 - tail))) - 1)]))
    return IntervalCalibration(tuple(edges.tolist()), tuple(lower), tuple(upper))


def expected_calibration_error(probabilities: Floats, outcomes: npt.NDArray[np.bool_], bins: int = 10) -> float:
    """Mean distance of probability and frequency over equal bins, weighted by their rows (Naeini et al., 2015)."""
    index = np.minimum((probabilities * bins).astype(int), bins - 1)
    error = 0.0
    for each in range(bins):
        there = index == each
        if there.any():
            error += float(there.mean() * abs(probabilities[there].mean() - outcomes[there].mean()))
    return error


def average_precision(scores: Floats, outcomes: npt.NDArray[np.bool_]) -> float:
    """Area under the precision-recall curve: the mean precision at each positive."""
    order = np.argsort(-scores, kind="stable")
    hits = outcomes[order]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].mean()) if hits.any() else 0.0
