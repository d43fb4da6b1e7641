"""Anomaly scores: how unusual a state is compared with healthy states, by two criteria.

The distance from the principal components of healthy states (Q statistic; Jackson and Mudholkar, 1979) detects sensors
that no longer correlate as usual. The path length in an isolation forest (Liu, Ting and Zhou, 2008) detects values that
are rare. The score is the share of healthy training states that are less unusual by the greater of the two criteria.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aurum.prediction.model.trees import Trees
from aurum.prediction.training.forest import fit_forest

Floats = npt.NDArray[np.float64]
_KEPT_VARIANCE = 0.9
_LIMIT = 8.0  # standard deviations to which features are clipped
_SHARES = np.linspace(0, 1, 101)


@dataclass(frozen=True, slots=True)
class AnomalyModel:
    """A trained anomaly model.

    Attributes:
        columns: Indices of the features that are used.
        mean: Mean of each feature.
        scale: Standard deviation of each feature.
        components: components[component, feature], the principal components.
        forest: The isolation forest.
        distances: Quantiles of the distances of healthy states, at shares from 0 to 1.
        paths: Likewise, of their negated path lengths.
        greater: Likewise, of the greater of their shares by distance and by path length.
    """

    columns: npt.NDArray[np.intp]
    mean: Floats
    scale: Floats
    components: Floats
    forest: Trees
    distances: Floats
    paths: Floats
    greater: Floats

    def __call__(self, features: Floats) -> Floats:
        """Returns for each row the share of healthy training states that are less unusual, from 0 to 1."""
        standard = _standardised(features.take(self.columns, axis=1), self.mean, self.scale)
        by_distance = np.interp(_distances(standard, self.components), self.distances, _SHARES)
        by_path = np.interp(-self.forest(standard), self.paths, _SHARES)
        return np.interp(np.maximum(by_distance, by_path), self.greater, _SHARES)


def fit_anomaly(features: Floats, columns: list[int], seed: int) -> tuple[AnomalyModel, str]:
    """Trains an anomaly model on the features of healthy states. Returns it with the text of its forest."""
    healthy = features[:, columns]
    there = ~np.isnan(healthy)
    count = np.maximum(there.sum(axis=0), 1)
    mean = np.where(there, healthy, 0.0).sum(axis=0) / count
    scale = np.sqrt((np.where(there, healthy - mean, 0.0) ** 2).sum(axis=0) / count)
    scale[scale < 1e-12] = 1.0
    standard = _standardised(healthy, mean, scale)
    _, singular, components = np.linalg.svd(standard, full_matrices=False)
    share = np.cumsum(singular**2) / max(float((singular**2).sum()), 1e-12)
    kept = components[: int(np.searchsorted(share, _KEPT_VARIANCE)) + 1]
    text = fit_forest(standard, seed)
    forest = Trees(text)
    distances, paths = _distances(standard, kept), -forest(standard)
    of_distances, of_paths = np.quantile(distances, _SHARES), np.quantile(paths, _SHARES)
    greater = np.maximum(np.interp(distances, of_distances, _SHARES), np.interp(paths, of_paths, _SHARES))
    return (
        AnomalyModel(
            np.array(columns, dtype=np.intp),
            mean,
            scale,
            kept,
            forest,
            of_distances,
            of_paths,
            np.quantile(greater, _SHARES),
        ),
        text,
    )


def _standardised(values: Floats, mean: Floats, scale: Floats) -> Floats:
    standard = (values - mean) / scale
    standard[np.isnan(standard)] = 0.0
    np.minimum(standard, _LIMIT, out=standard)  # np.clip takes four times as long for one row
    return np.maximum(standard, -_LIMIT, out=standard)


def _distances(standard: Floats, components: Floats) -> Floats:
    residual = standard - (standard @ components.T) @ components
    distances: Floats = np.sqrt((residual * residual).sum(axis=1))
    return distances
