"""Finds features in which the RUL is constrained to be monotone, since wear does not heal."""

from collections.abc import Sequence

import numpy as np

from aurum.prediction.model.features import MIDDLE, SHORT
from aurum.prediction.training.boosting import binned, fit_trees, raw_scores
from aurum.prediction.training.specification import TrainingOptions
from aurum.prediction.training.table import Floats, Indices, Outcomes, Table, thinned_rows

_LEAST_LIVES = 6
_LEAST_AGREEMENT = 0.95  # share of lives in which a feature must have the same trend
_ROWS = 12_000  # on which they are compared
_MAX_ERROR_RATIO = 1.02  # factor by which constraints may increase the error on the first fold


def monotone_features(
    table: Table, target: Outcomes, names: Sequence[str], fold: Indices, options: TrainingOptions
) -> tuple[int, ...]:
    """Returns for each feature 1 if the RUL may only rise with it, -1 if it may only fall, else 0.

    Means with the same trend in nearly all lives show wear. They are constrained unless that makes predictions worse.
    The result is empty if nothing is constrained.
    """
    if target.left is None:
        return ()
    signs = np.zeros(len(names), dtype=int)
    lives = [np.flatnonzero(table.run == run) for run in np.unique(table.run[table.failed])]
    lives = [rows[len(rows) // 2 :] for rows in lives if len(rows) >= 8]
    for index, name in enumerate(names):
        if not name.endswith((f".mean_{SHORT}", f".mean_{MIDDLE}")) or len(lives) < _LEAST_LIVES:
            continue
        trends = [_trend_sign(table.features[rows, index], table.left[rows]) for rows in lives]
        agreed = float(np.mean(trends))
        if abs(agreed) >= 2 * _LEAST_AGREEMENT - 1:
            signs[index] = int(np.sign(agreed))
    if not signs.any():
        return ()
    kept = thinned_rows(len(table), _ROWS)
    features, left = table.features[kept], target.left[kept]
    test = fold[kept] == 0
    has_rul = ~np.isnan(left)
    errors = []
    rows = has_rul & ~test
    fitted = binned(features[rows], options)
    for constraints in ((), signs.tolist()):
        booster = fit_trees(
            fitted,
            left[rows],
            "regression",
            options,
            monotone=constraints,
        )
        predicted = np.clip(raw_scores(booster, features[test & has_rul]), 0, target.cap)
        errors.append(float(np.sqrt(np.mean((predicted - left[test & has_rul]) ** 2))))
    return tuple(signs.tolist()) if errors[1] <= _MAX_ERROR_RATIO * errors[0] else ()


def _trend_sign(values: Floats, left: Floats) -> float:
    """Returns 1 if the values rise with the RUL, -1 if they fall with it, 0 if there are too few values."""
    present = ~np.isnan(values)
    if present.sum() < 8:
        return 0.0
    values, left = values[present], left[present]
    return float(np.sign(((values - values.mean()) * (left - left.mean())).sum()))
