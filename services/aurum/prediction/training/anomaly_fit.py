"""Trains anomaly models on the features of healthy states, and calibrates them on held-out blocks of healthy time."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from aurum.prediction.model.anomaly import (
    SHARES,
    TAIL_SHARE,
    AnomalyModel,
    Floats,
    HeldOutScores,
    criteria,
    standardize,
)
from aurum.prediction.model.features import MIDDLE
from aurum.prediction.model.trees import Trees
from aurum.prediction.training.forest import fit_forest
from aurum.prediction.training.healthy_time import MONTH_HOURS, Blocks, blocks_of, episodes
from aurum.prediction.training.table import Bools, Indices

_KEPT_VARIANCE = 0.9
_LEAST_VARIANCE = 1e-6  # of a component, in squared standard deviations
_LEVELS = 200  # of surprise, for which alarms are counted
_LEAST_ALARMS = 5  # below this count, rates are extrapolated
_FINE_SHARES = np.concatenate([SHARES[:-1], 1 - np.geomspace(0.009, 1e-5, 60), [1.0]])


@dataclass(frozen=True, slots=True)
class AnomalyFit:
    """A trained anomaly model.

    Attributes:
        model: The model.
        forest: The text of its forest.
        months: Months of healthy operation that were held out for its calibration.
        blocks: How the held-out blocks were formed.
    """

    model: AnomalyModel
    forest: str
    months: float
    blocks: str


@dataclass(frozen=True, slots=True)
class _Detector:
    mean: Floats
    scale: Floats
    components: Floats
    variances: Floats
    text: str

    def __call__(self, features: Floats) -> Floats:
        standard = standardize(features, self.mean, self.scale)
        return criteria(standard, self.components, self.variances, Trees(self.text))


def fit_anomaly(features: Floats, columns: list[int], run: Indices, hours: Floats, seed: int) -> AnomalyFit:
    """Trains an anomaly model.

    Args:
        features: features[row, feature] of healthy states, those of each run in chronological order.
        columns: The features to use.
        run: The run of each row.
        hours: Hours of operation between two rows, for each row.
        seed: Seed of the forests.
    """
    healthy = features[:, columns]
    detector = _fit(healthy, seed)
    blocks = blocks_of(run, MIDDLE)
    held_out = _held_out_criteria(healthy, blocks, lambda rows: _fit(rows, seed))
    scores = _calibrate(held_out, detector.variances, run, hours)
    distances, paths = held_out[:, 0], held_out[:, 1]
    of_distances, of_paths = np.quantile(distances, SHARES), np.quantile(paths, SHARES)
    greater = np.maximum(np.interp(distances, of_distances, SHARES), np.interp(paths, of_paths, SHARES))
    model = AnomalyModel(
        np.array(columns, dtype=np.intp),
        detector.mean,
        detector.scale,
        detector.components,
        Trees(detector.text),
        of_distances,
        of_paths,
        np.quantile(greater, SHARES),
        scores,
    )
    return AnomalyFit(model, detector.text, float(hours.sum()) / MONTH_HOURS, blocks.description)


def _fit(healthy: Floats, seed: int) -> _Detector:
    present = ~np.isnan(healthy)
    count = np.maximum(present.sum(axis=0), 1)
    mean = np.where(present, healthy, 0.0).sum(axis=0) / count
    scale = np.sqrt((np.where(present, healthy - mean, 0.0) ** 2).sum(axis=0) / count)
    scale[scale < 1e-12] = 1.0
    standard = standardize(healthy, mean, scale)
    _, singular, components = np.linalg.svd(standard, full_matrices=False)
    share = np.cumsum(singular**2) / max(float((singular**2).sum()), 1e-12)
    kept = int(np.searchsorted(share, _KEPT_VARIANCE)) + 1
    variances = np.maximum(singular[:kept] ** 2 / len(standard), _LEAST_VARIANCE)
    return _Detector(mean, scale, components[:kept], variances, fit_forest(standard, seed))


def _held_out_criteria(healthy: Floats, blocks: Blocks, fit: Callable[[Floats], _Detector]) -> Floats:
    """Returns the criteria of each row by a model that was fitted to other blocks."""
    found = np.empty((len(healthy), 3))
    for fold in np.unique(blocks.fold):
        rows, others = blocks.fold == fold, ~blocks.near[fold]
        found[rows] = fit(healthy[others if others.any() else ~rows])(healthy[rows])
    return found


def _calibrate(held_out: Floats, variances: Floats, run: Indices, hours: Floats) -> HeldOutScores:
    shares = _FINE_SHARES[(len(held_out) * (1 - _FINE_SHARES) >= 1) | (_FINE_SHARES == 1)]
    begins = np.quantile(held_out, 1 - TAIL_SHARE, axis=0)
    beyond = held_out > begins  # none where a criterion is constant
    excess = np.where(beyond, held_out - begins, 0.0).sum(axis=0) / np.maximum(beyond.sum(axis=0), 1)
    usual = np.maximum(excess, 1e-6 * (1 + np.abs(begins)))
    tails = np.stack([begins, usual], axis=1)
    unscored = HeldOutScores(variances, shares, np.quantile(held_out, shares, axis=0).T, tails, shares, shares, shares)
    surprise = unscored.surprise(held_out)
    levels, rates = _alarm_rates(surprise, run, float(hours.sum()) / MONTH_HOURS)
    return HeldOutScores(variances, shares, unscored.quantiles, tails, np.quantile(surprise, shares), levels, rates)


def _alarm_rates(surprise: Floats, run: Indices, months: float) -> tuple[Floats, Floats]:
    """Returns surprises, and how many alarms a month each of them would have given on held-out time, descending.

    Surprises with few alarms are left out, except the first one.
    """
    if not months:
        return np.empty(0), np.empty(0)
    levels = np.unique(np.quantile(surprise, np.linspace(0.5, 1, _LEVELS)))
    counts = np.array([_alarms(surprise > level, run) for level in levels])
    enough = counts >= _LEAST_ALARMS
    if not enough.any():
        return levels[:1], np.array([max(int(counts[0]), 1) / months])
    last = int(np.flatnonzero(enough)[-1]) + 1
    rates = np.maximum.accumulate(counts[:last][::-1])[::-1] / months
    return levels[:last], rates


def _alarms(beyond: Bools, run: Indices) -> int:
    return sum(len(episodes(beyond[run == number])) for number in np.unique(run)) if beyond.any() else 0
