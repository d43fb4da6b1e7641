"""Whether the features that arrive still look like those that a model was trained on."""

import collections

import numpy as np
import numpy.typing as npt

from aurum.prediction.model import Model
from aurum.runtime import metrics

_WINDOW = 2000  # predictions that are compared, per machine type
_LEAST = 200
_EVERY = 50  # predictions between two comparisons


class DriftMonitor:
    """Population stability index (Siddiqi, 2006) of a model's main features over the latest predictions."""

    def __init__(self, model: Model) -> None:
        self._machine_type = model.card.machine_type
        names = list(model.spec.names)
        self._columns = [names.index(name) for name in model.card.drift.features]
        self._edges = [np.array(edges) for edges in model.card.drift.edges]
        self._rows: collections.deque[npt.NDArray[np.float64]] = collections.deque(maxlen=_WINDOW)
        self._since = 0
        metrics.track_drift(self._machine_type, float("nan"))  # not known yet

    def add(self, features: npt.NDArray[np.float64]) -> None:
        """Takes the features of predictions, one row each."""
        self._rows.extend(features[:, self._columns])
        self._since += len(features)
        if self._since >= _EVERY and len(self._rows) >= _LEAST:
            self._since = 0
            metrics.track_drift(self._machine_type, self.index())

    def index(self) -> float:
        """The largest index of the features; above 0.25 is commonly called a major shift."""
        rows = np.array(self._rows)
        return max((_psi(rows[:, index], edges) for index, edges in enumerate(self._edges)), default=0.0)


def _psi(values: npt.NDArray[np.float64], edges: npt.NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    if not len(known):
        return 0.0
    counts = np.bincount(np.searchsorted(edges, known, side="right"), minlength=len(edges) + 1)
    actual = np.maximum(counts / len(known), 1e-4)
    expected = 1 / (len(edges) + 1)
    return float(((actual - expected) * np.log(actual / expected)).sum())
