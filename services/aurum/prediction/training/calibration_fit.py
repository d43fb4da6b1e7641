"""Fits calibrations to held-out rows, and measures their quality."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression

from aurum.prediction.model.calibration import COVERAGE, LEVELS, IntervalCalibration, LowerTail, RiskCalibration

Floats = npt.NDArray[np.float64]
_MOST_BINS = 12  # bins of the prediction, each with its own residual quantiles
_ROWS_OF_A_BIN = 200
_MOST_SPREAD = 2.0
_FEW_MACHINES = 30
_KNOTS = 60  # maximum number of points of a calibration curve


def calibrate_risk(scores: Floats, outcomes: npt.NDArray[np.bool_]) -> RiskCalibration:
    """Calibrates risk by isotonic regression of outcomes on held-out scores.

    The method is pool adjacent violators (Zadrozny and Elkan, 2002).
    """
    order = np.argsort(scores, kind="stable")
    fitted = np.asarray(isotonic_regression(outcomes[order].astype(np.float64)).x)
    sorted_scores = scores[order]
    edges = np.flatnonzero(np.append(True, np.diff(fitted) > 1e-9))
    ends = np.append(edges[1:], len(fitted))
    knots = [(float(sorted_scores[a:b].mean()), float(fitted[a]), int(b - a)) for a, b in zip(edges, ends, strict=True)]
    while len(knots) > _KNOTS:  # merge the neighbours with the fewest rows
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
    # Adds half a positive and half a negative to each block, since no finite sample shows that a risk is 0 or 1
    smoothed = [(probability * weight + 0.5) / (weight + 1) for _, probability, weight in knots]
    return RiskCalibration(np.array([knot[0] for knot in knots]), np.maximum.accumulate(smoothed))


def calibrate_interval(
    predictions: Floats, truths: Floats, cap: float = np.inf, machines: int = 1_000_000
) -> IntervalCalibration:
    """Calibrates the interval of the RUL by split conformal quantiles of held-out residuals.

    The method is that of Papadopoulos et al. (2002) and Vovk et al. (2017), by bins of the prediction (Mondrian), so
    that short and long predictions are covered equally. True values at the cap are nearly always covered, since the
    upper bound is capped as well. Therefore the quantiles are widened around their median until the interval has its
    coverage among the other rows.

    Args:
        predictions: Predicted RUL.
        truths: True RUL.
        cap: Cap of the RUL.
        machines: Number of machines that the rows belong to. With few machines a greater coverage is aimed at, since
            another machine may differ from them.
    """
    bins_wanted = int(np.clip(len(predictions) // _ROWS_OF_A_BIN, 1, _MOST_BINS))
    edges = np.unique(np.quantile(predictions, np.linspace(0, 1, bins_wanted + 1)[1:-1]))
    bins = np.searchsorted(edges, predictions, side="right")
    quantiles = []
    for index in range(len(edges) + 1):
        residuals = np.sort((truths - predictions)[bins == index])
        if not len(residuals):
            residuals = np.sort(truths - predictions)
        count = len(residuals)
        # Ranks are rounded outwards, so that the coverage holds for a finite sample
        ranks = np.where(LEVELS < 0.5, np.floor((count + 1) * LEVELS), np.ceil((count + 1) * LEVELS)).astype(int) - 1
        quantiles.append(residuals[np.clip(ranks, 0, count - 1)])
    residual_quantiles = np.array(quantiles)
    informative = truths < cap
    if informative.any() and not informative.all():
        residual_quantiles = _widen(
            residual_quantiles,
            bins[informative],
            (truths - predictions)[informative],
            _target_coverage(machines),
        )
    return IntervalCalibration(edges, residual_quantiles)


def fit_lower_tail(
    calibration: IntervalCalibration,
    predictions: Floats,
    truths: Floats,
    machines: npt.NDArray[np.intp],
    cap: float = np.inf,
) -> LowerTail:
    """Fits how likely failures are before the lowest quantile, and how far before it, to held-out rows.

    The rows of a machine are alike, so it is the number of machines that says how well both are known. Half a failure
    is added, since the quantiles were fitted to the same rows, and one distance: the usual one of the two lowest
    quantiles.

    Args:
        calibration: The interval, fitted to the same rows.
        predictions: Predicted RUL.
        truths: True RUL.
        machines: The machine of each row.
        cap: Cap of the RUL.
    """
    lowest = np.minimum(calibration(predictions)[:, 0], cap)
    distance = lowest - truths
    before = distance > 0
    usual = float((calibration.residuals[:, 1] - calibration.residuals[:, 0]).mean())
    count, all_machines = len(np.unique(machines[before])), len(np.unique(machines))
    level = (float(LEVELS[0]) * all_machines + 0.5) / (all_machines + 1)
    mean = (usual + count * float(distance[before].mean())) / (count + 1) if count else usual
    return LowerTail(level, max(mean, 1e-9), count + 1.0)


def _target_coverage(machines: int) -> float:
    """Returns the coverage to aim at: (n + 1)/n of the nominal one, as for n exchangeable machines, if n is small."""
    return min(1.0, COVERAGE * (machines + 1) / machines) if machines < _FEW_MACHINES else COVERAGE


def _widen(quantiles: Floats, bins: npt.NDArray[np.intp], residuals: Floats, coverage: float) -> Floats:
    """Widens the quantiles by a common factor, so that the outermost ones contain `coverage` of the residuals."""
    middle = quantiles[:, [len(LEVELS) // 2]]
    low, high = (np.abs(quantiles[:, end] - middle[:, 0])[bins] for end in (0, -1))
    off = residuals - middle[bins, 0]
    needed = np.where(off < 0, -off / np.maximum(low, 1e-12), off / np.maximum(high, 1e-12))
    factor = float(np.clip(np.quantile(needed, coverage), 1.0, _MOST_SPREAD))
    spread: Floats = middle + factor * (quantiles - middle)
    return spread


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """One bin of a calibration curve.

    Attributes:
        predicted: The mean predicted risk.
        observed: The share of rows with a failure within the horizon.
        rows: The number of rows.
    """

    predicted: float
    observed: float
    rows: int


def calibration_curve(probabilities: Floats, outcomes: npt.NDArray[np.bool_], bins: int = 10) -> list[CalibrationBin]:
    """Returns the calibration curve with bins of equal width from 0 to 1. Empty bins are left out."""
    index = np.minimum((probabilities * bins).astype(int), bins - 1)
    return [
        CalibrationBin(float(probabilities[in_bin].mean()), float(outcomes[in_bin].mean()), int(in_bin.sum()))
        for in_bin in (index == each for each in range(bins))
        if in_bin.any()
    ]


def expected_calibration_error(probabilities: Floats, outcomes: npt.NDArray[np.bool_], bins: int = 10) -> float:
    """Returns the mean distance of probability and frequency over bins, weighted by rows (Naeini et al., 2015)."""
    curve = calibration_curve(probabilities, outcomes, bins)
    return sum(each.rows * abs(each.predicted - each.observed) for each in curve) / max(len(outcomes), 1)


def average_precision(scores: Floats, outcomes: npt.NDArray[np.bool_]) -> float:
    """Returns the area under the precision-recall curve, which is the mean precision at each positive."""
    order = np.argsort(-scores, kind="stable")
    hits = outcomes[order]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].mean()) if hits.any() else 0.0
