"""Fits the wear index, and computes the features that a table lacks because they depend on it or on a choice."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from aurum.prediction.model.features import (
    SHORT,
    STATISTICS,
    WINDOW,
    Derived,
    Steps,
    deviations_of,
    features_of,
)
from aurum.prediction.model.wear_index import WearIndex
from aurum.prediction.training.table import Bools, Floats, Indices, Table, thinned_rows

_RIDGE = 1e-3  # penalty of the regression on standardised sensors, per row
LEAST_SENSORS = 2  # of one sensor, the index would be the sensor itself
_LAST = STATISTICS.index("last")


def fit_wear_index(
    table: Table, left: Floats, rows: Bools, sensors: int, unused: Sequence[int] = ()
) -> WearIndex | None:
    """Fits the index by ridge regression of the RUL on the last values of the sensors; it rises with wear.

    Args:
        table: The rows, with the statistics of the sensors.
        left: RUL up to the cap; NaN if it is not known.
        rows: The rows to fit it to.
        sensors: The number of sensors.
        unused: Indices of sensors that the index does not use, such as those whose values stand for words.

    Returns:
        The index with a standard deviation of 1, or None if no sensor is related to the RUL.
    """
    used = rows & ~np.isnan(left)
    values = table.features[used][:, 1 + _LAST : 1 + sensors * len(STATISTICS) : len(STATISTICS)]
    if not len(values):
        return None
    present = ~np.isnan(values)
    count = np.maximum(present.sum(axis=0), 1)
    mean = np.where(present, values, 0.0).sum(axis=0) / count
    scale = np.sqrt((np.where(present, values - mean, 0.0) ** 2).sum(axis=0) / count)
    constant = scale < 1e-12
    constant[list(unused)] = True
    scale[constant] = 1.0
    standard = np.where(present, (values - mean) / scale, 0.0)
    standard[:, constant] = 0.0
    target = left[used] - left[used].mean()
    weight = -np.linalg.solve(standard.T @ standard + _RIDGE * len(standard) * np.eye(sensors), standard.T @ target)
    spread = float((standard @ weight).std())
    if not np.isfinite(spread) or spread < 1e-9 * max(float(left[used].std()), 1e-300):
        return None
    weight /= spread
    share = np.abs(weight) / np.abs(weight).sum()
    return WearIndex(mean, weight / scale, share)


def design(table: Table, derived: Derived) -> Floats:
    """Returns features[row, feature] of a table with derived features, in the order of FeatureSpec.names.

    Args:
        table: The rows. Its features are the statistics of the sensors.
        derived: The features to add. They are the same, bit by bit, as those that serving computes.
    """
    blocks = [table.features]
    if derived.index is not None:
        blocks.append(_index_statistics(table, derived.index))
    if derived.deviations:
        statistics = np.hstack([block[:, 1:] if at == 0 else block for at, block in enumerate(blocks)])
        names = len(STATISTICS)
        recent, usual = STATISTICS.index(f"mean_{SHORT}"), STATISTICS.index(f"mean_{WINDOW}")
        blocks.append(deviations_of(statistics[:, recent::names], statistics[:, usual::names]))
    return np.hstack(blocks) if len(blocks) > 1 else table.features


def _index_statistics(table: Table, index: WearIndex) -> Floats:
    """Returns statistics[row, statistic] of the wear index."""
    statistics = np.empty((len(table), len(STATISTICS)))
    for run in np.unique(table.run):
        rows = np.flatnonzero(table.run == run)
        steps = table.steps[int(run)]
        alone = Steps(steps.ages, index(steps.means)[:, None], steps.counted)
        statistics[rows] = features_of(alone, table.step[rows])[:, 1:]
    return statistics


def thinned(table: Table, most: int) -> tuple[Table, Indices]:
    """Returns about `most` rows of a table at most, evenly, and their indices."""
    kept = thinned_rows(len(table), most)
    return (
        replace(
            table,
            features=table.features[kept],
            left=table.left[kept],
            failed=table.failed[kept],
            share=table.share[kept],
            group=table.group[kept],
            run=table.run[kept],
            step=table.step[kept],
        ),
        kept,
    )
