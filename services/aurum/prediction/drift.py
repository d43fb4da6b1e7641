"""Whether the features that arrive still look like those that a model was trained on."""

import collections

import numpy as np
import numpy.typing as npt

from aurum.prediction.model import Model
from aurum.runtime import metrics

_WINDOW = 2000  # predictions that are compared, per machine type
_LEAST = 200  # for the index
_EVERY = 50  # predictions between two comparisons
_MARGIN = 0.1  # of a feature's range in training, by which it may be left


class DriftMonitor:
    """Two looks at a model's main features over the latest predictions.

    Population stability index (Siddiqi, 2006): how differently they are spread. It takes many machines of all ages to
    say something; a few of one age are spread otherwise than whole lives, and the model serves them well.

    Out of range: the share of predictions with a feature that training never saw. It needs no spread, so it holds for
    one machine as well.
    """

    def __init__(self, model: Model) -> None:
        self._machine_type = model.card.machine_type
        names = list(model.spec.names)
        drift = model.card.drift
        self._columns = [names.index(name) for name in drift.features]
        self._edges = [np.array(edges) for edges in drift.edges]
        ranges = np.array(drift.ranges or [(-np.inf, np.inf)] * len(drift.features), dtype=np.float64).reshape(-1, 2)
        margin = np.where(np.isfinite(ranges[:, 1]), _MARGIN * (ranges[:, 1] - ranges[:, 0]), 0.0)
        self._low, self._high = ranges[:, 0] - margin, ranges[:, 1] + margin
        self._rows: collections.deque[npt.NDArray[np.float64]] = collections.deque(maxlen=_WINDOW)
        self._since = 0
        metrics.track_drift(self._machine_type, float("nan"), 0.0)  # not known yet

    def add(self, features: npt.NDArray[np.float64]) -> None:
        """Takes the features of predictions, one row each."""
        self._rows.extend(features[:, self._columns])
        self._since += len(features)
        if self._since >= _EVERY:
            self._since = 0
            rows = np.array(self._rows)
            index = self._index(rows) if len(rows) >= _LEAST else float("nan")
            metrics.track_drift(self._machine_type, index, self._out_of_range(rows))

    def _index(self, rows: npt.NDArray[np.float64]) -> float:
        """The largest index of the features."""
        return max((_psi(rows[:, index], edges) for index, edges in enumerate(self._edges)), default=0.0)

    def _out_of_range(self, rows: npt.NDArray[np.float64]) -> float:
        """NaN, a sensor that is not there, is neither in nor out."""
        return float(((rows < self._low) | (rows > self._high)).any(axis=1).mean())


def _psi(values: npt.NDArray[np.float64], edges: npt.NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    if not len(known):
        return 0.0
    counts = np.bincount(np.searchsorted(edges, known, side="right"), minlength=len(edges) + 1)
    actual = np.maximum(counts / len(known), 1e-4)
    expected = 1 / (len(edges) + 1)
    return float(((actual - expected) * np.log(actual / expected)).sum())
