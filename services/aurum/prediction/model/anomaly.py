"""Anomaly scores: how unusual a state is compared with healthy states, by two criteria.

The distance from the principal components of healthy states (Q statistic; Jackson and Mudholkar, 1979) detects sensors
that no longer correlate as usual. The path length in an isolation forest (Liu, Ting and Zhou, 2008) detects values that
are rare. The score is the share of healthy training states that are less unusual by the greater of the two criteria.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aurum.prediction.model.trees import Trees

Floats = npt.NDArray[np.float64]
_LIMIT = 8.0  # standard deviations to which features are clipped
SHARES = np.linspace(0, 1, 101)
"""The shares at which the quantiles of an anomaly model are stored."""


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
        standard = standardize(features.take(self.columns, axis=1), self.mean, self.scale)
        by_distance = np.interp(residual_distances(standard, self.components), self.distances, SHARES)
        by_path = np.interp(-self.forest(standard), self.paths, SHARES)
        return np.interp(np.maximum(by_distance, by_path), self.greater, SHARES)


def standardize(values: Floats, mean: Floats, scale: Floats) -> Floats:
    """Returns values[row, feature] in standard deviations from the mean, clipped; 0 for missing values."""
    standard = (values - mean) / scale
    standard[np.isnan(standard)] = 0.0
    np.minimum(standard, _LIMIT, out=standard)  # np.clip takes four times as long for one row
    return np.maximum(standard, -_LIMIT, out=standard)


def residual_distances(standard: Floats, components: Floats) -> Floats:
    """Returns the distance of each row of standard[row, feature] from the principal components."""
    residual = standard - (standard @ components.T) @ components
    distances: Floats = np.sqrt((residual * residual).sum(axis=1))
    return distances
