"""Fits the RUL by age alone to the lives of a table."""

import numpy as np
from scipy.optimize import isotonic_regression

from aurum.prediction.model.age_blend import AgeBlend
from aurum.prediction.training.table import Bools, Floats, Table

_KNOTS = 40


def fit_age_blend(table: Table, left: Floats, rows: Bools, weight: float) -> AgeBlend | None:
    """Returns the mean RUL of the lives that reached each age, which falls with age (isotonic regression).

    Args:
        table: The rows.
        left: RUL up to the cap; NaN if it is not known.
        rows: The rows to fit it to.
        weight: Weight of the estimate in the blend.

    Returns:
        The estimate, or None if the machines do not count their life.
    """
    age = table.features[:, 0]
    used = rows & ~np.isnan(left) & ~np.isnan(age)
    if not used.any():
        return None
    age, left = age[used], left[used]
    edges = np.unique(np.quantile(age, np.linspace(0, 1, _KNOTS + 1)[1:-1]))
    bins = np.searchsorted(edges, age, side="right")
    counts = np.bincount(bins)
    occupied = np.flatnonzero(counts)
    weights = counts[occupied].astype(np.float64)
    ages = np.bincount(bins, age)[occupied] / weights
    means = np.bincount(bins, left)[occupied] / weights
    return AgeBlend(weight, ages, np.asarray(isotonic_regression(means, weights=weights, increasing=False).x))
