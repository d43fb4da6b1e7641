"""Detects whether the features that arrive differ from those that a model was trained on."""

import collections
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aurum.prediction import metrics
from aurum.prediction.model.model import Model
from aurum.prediction.serving.mean_changes import MeanChanges

Floats = npt.NDArray[np.float64]

_WINDOW = 2000  # latest predictions that are compared, per machine type
_LEAST = 200  # predictions that the stability index needs
_EVERY = 50  # predictions between two comparisons
_AT_ONCE = 64  # rows that are sampled evenly from a larger batch
_MARGIN = 0.1  # tolerance beyond a feature's range in training, as a share of that range


@dataclass(frozen=True, slots=True)
class FeatureDrift:
    """The drift of one feature.

    Attributes:
        feature: The feature.
        stability_index: Population stability index; None while there are too few predictions.
        out_of_range: Share of the latest predictions with a value outside the training range.
        changes: Number of changes of the mean since the model began to serve.
    """

    feature: str
    stability_index: float | None
    out_of_range: float
    changes: int


class DriftMonitor:
    """Measures the drift of a model's main features over the latest predictions in three ways.

    The population stability index (Siddiqi, 2006) compares the distribution with that in training. It is only
    meaningful with many machines of all ages: a few machines of one age differ from whole lives although the model
    serves them well.

    The share out of range counts the predictions with a value outside the training range. It is meaningful for a single
    machine as well.

    Changes of the mean are counted by MeanChanges.
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
        self._reported = [0] * len(drift.features)
        self._indices: list[float] = [float("nan")] * len(drift.features)
        self._outside = np.zeros(len(drift.features))
        metrics.track_drift(self._machine_type, float("nan"), 0.0)  # not known yet

    def observe(self, features: Floats) -> None:
        """Adds the features of predictions, rows[prediction, feature]."""
        if len(features) > _AT_ONCE:
            features = features[:: -(-len(features) // _AT_ONCE)]
        rows = features[:, self._columns]
        self._rows.extend(rows)
        for row in ((rows - self._least) / self._scale).tolist():
            for index, value in enumerate(row):
                if value == value:  # noqa: PLR0124 - skips NaN, the value of a missing sensor
                    self._changes[index] += self._means[index].update(value)
        self._since += len(rows)
        if self._since >= _EVERY:
            self._since = 0
            self._compare()

    def feature_drift(self) -> list[FeatureDrift]:
        """Returns the drift of each main feature as of the last comparison."""
        return [
            FeatureDrift(
                name, None if np.isnan(self._indices[index]) else self._indices[index], float(outside), changes
            )
            for index, (name, outside, changes) in enumerate(
                zip(self._names, self._outside, self._changes, strict=True)
            )
        ]

    def _compare(self) -> None:
        """Compares the latest predictions with the training data, and updates the metrics."""
        rows = np.array(self._rows)
        outside = (rows < self._low) | (rows > self._high)  # NaN does not count as outside
        self._outside = outside.mean(axis=0)
        if len(rows) >= _LEAST:
            self._indices = [_psi(rows[:, index], edges) for index, edges in enumerate(self._edges)]
        metrics.track_drift(
            self._machine_type, max(self._indices, default=float("nan")), float(outside.any(axis=1).mean())
        )
        for index, name in enumerate(self._names):
            changes, self._reported[index] = self._changes[index] - self._reported[index], self._changes[index]
            metrics.track_feature_drift(self._machine_type, name, self._indices[index], changes)


def _psi(values: Floats, edges: Floats) -> float:
    """Returns the population stability index of `values` for the inner edges of the deciles in training."""
    present = values[~np.isnan(values)]
    if not len(present):
        return 0.0
    counts = np.bincount(np.searchsorted(edges, present, side="right"), minlength=len(edges) + 1)
    actual = np.maximum(counts / len(present), 1e-4)
    expected = 1 / (len(edges) + 1)
    return float(((actual - expected) * np.log(actual / expected)).sum())
