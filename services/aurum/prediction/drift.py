"""Whether the features that arrive still look like those that a model was trained on."""

import collections
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from river._river_rust.drift import AdaptiveWindowing

from aurum.prediction.model import Model
from aurum.runtime import metrics

Floats = npt.NDArray[np.float64]

_WINDOW = 2000  # predictions that are compared, per machine type
_LEAST = 200  # for the index
_EVERY = 50  # predictions between two comparisons
_AT_ONCE = 64  # rows of a large batch that are looked at, evenly
_MARGIN = 0.1  # of a feature's range in training, by which it may be left


@dataclass(frozen=True, slots=True)
class FeatureDrift:
    """stability_index: None while there are too few predictions. changes: since the model serves."""

    feature: str
    stability_index: float | None
    out_of_range: float
    changes: int


class MeanChanges:
    """Finds changes of a mean as river.drift.ADWIN does (Bifet and Gavaldà, 2007): it keeps as long a window as shows
    none. On the core of that class, as its package imports scikit-learn and SciPy: seconds of a start, and 75 MB."""

    def __init__(self) -> None:
        self._window = self._empty()

    def add(self, value: float) -> bool:
        """Whether the mean has changed with it."""
        changed = bool(self._window.update(value))
        if changed:
            self._window = self._empty()
        return changed

    @staticmethod
    def _empty() -> AdaptiveWindowing:
        return AdaptiveWindowing(delta=0.002, clock=32, max_buckets=5, min_window_length=5, grace_period=10)


class DriftMonitor:
    """Three looks at a model's main features over the latest predictions.

    Population stability index (Siddiqi, 2006): how differently they are spread. It takes many machines of all ages to
    say something; a few of one age are spread otherwise than whole lives, and the model serves them well.

    Out of range: the share of predictions with a feature that training never saw. It needs no spread, so it holds for
    one machine as well.

    Changes of the mean: see MeanChanges.
    """

    def __init__(self, model: Model) -> None:
        self._machine_type = model.card.machine_type
        names = list(model.spec.names)
        drift = model.card.drift
        self._names = drift.features
        self._columns = [names.index(name) for name in drift.features]
        self._edges = [np.array(edges) for edges in drift.edges]
        ranges = np.array(drift.ranges, dtype=np.float64).reshape(-1, 2)
        self._scale = np.maximum(ranges[:, 1] - ranges[:, 0], 1e-12)
        self._least = ranges[:, 0]
        self._low, self._high = ranges[:, 0] - _MARGIN * self._scale, ranges[:, 1] + _MARGIN * self._scale
        self._rows: collections.deque[Floats] = collections.deque(maxlen=_WINDOW)
        self._since = 0
        self._means = [MeanChanges() for _ in drift.features]
        self._changes = [0] * len(drift.features)
        self._told = [0] * len(drift.features)
        self._indices: list[float] = [float("nan")] * len(drift.features)
        self._outside = np.zeros(len(drift.features))
        metrics.track_drift(self._machine_type, float("nan"), 0.0)  # not known yet

    def add(self, features: Floats) -> None:
        """Takes the features of predictions, one row each."""
        if len(features) > _AT_ONCE:
            features = features[:: -(-len(features) // _AT_ONCE)]
        rows = features[:, self._columns]
        self._rows.extend(rows)
        for row in ((rows - self._least) / self._scale).tolist():
            for index, value in enumerate(row):
                if value == value:  # noqa: PLR0124 - NaN, a sensor that is not there, is no change
                    self._changes[index] += self._means[index].add(value)
        self._since += len(rows)
        if self._since >= _EVERY:
            self._since = 0
            self._compare()

    def features(self) -> list[FeatureDrift]:
        """As of the last comparison."""
        return [
            FeatureDrift(
                name, None if np.isnan(self._indices[index]) else self._indices[index], float(outside), changes
            )
            for index, (name, outside, changes) in enumerate(
                zip(self._names, self._outside, self._changes, strict=True)
            )
        ]

    def _compare(self) -> None:
        rows = np.array(self._rows)
        outside = (rows < self._low) | (rows > self._high)  # NaN is neither in nor out
        self._outside = outside.mean(axis=0)
        if len(rows) >= _LEAST:
            self._indices = [_psi(rows[:, index], edges) for index, edges in enumerate(self._edges)]
        metrics.track_drift(
            self._machine_type, max(self._indices, default=float("nan")), float(outside.any(axis=1).mean())
        )
        for index, name in enumerate(self._names):
            changes, self._told[index] = self._changes[index] - self._told[index], self._changes[index]
            metrics.track_feature_drift(self._machine_type, name, self._indices[index], changes)


def _psi(values: Floats, edges: Floats) -> float:
    known = values[~np.isnan(values)]
    if not len(known):
        return 0.0
    counts = np.bincount(np.searchsorted(edges, known, side="right"), minlength=len(edges) + 1)
    actual = np.maximum(counts / len(known), 1e-4)
    expected = 1 / (len(edges) + 1)
    return float(((actual - expected) * np.log(actual / expected)).sum())
