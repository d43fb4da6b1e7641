"""How unusual a state is among healthy ones: its distance from their principal components (the Q statistic)."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_KEPT_VARIANCE = 0.9
_LIMIT = 8.0  # standard deviations beyond which a feature counts no further


@dataclass(frozen=True, slots=True)
class AnomalyModel:
    """columns: which features take part. quantiles: of healthy distances, evenly spaced from 0 to 1."""

    columns: tuple[int, ...]
    mean: Floats
    scale: Floats
    components: Floats
    quantiles: Floats

    def __call__(self, features: Floats) -> Floats:
        """The share of healthy training states that are less unusual; 0 to 1."""
        distances = _distances(features[:, list(self.columns)], self.mean, self.scale, self.components)
        return np.interp(distances, self.quantiles, np.linspace(0, 1, len(self.quantiles)))


def fit_anomaly(features: Floats, columns: list[int]) -> AnomalyModel:
    """From the features of healthy states; Jackson and Mudholkar, 1979."""
    healthy = features[:, columns]
    mean = np.nan_to_num(np.nanmean(healthy, axis=0))
    scale = np.nan_to_num(np.nanstd(healthy, axis=0))
    scale[scale < 1e-12] = 1.0
    standard = _standardised(healthy, mean, scale)
    _, singular, components = np.linalg.svd(standard, full_matrices=False)
    share = np.cumsum(singular**2) / max(float((singular**2).sum()), 1e-12)
    kept = components[: int(np.searchsorted(share, _KEPT_VARIANCE)) + 1]
    quantiles = np.quantile(_distances(healthy, mean, scale, kept), np.linspace(0, 1, 101))
    return AnomalyModel(tuple(columns), mean, scale, kept, quantiles)


def _standardised(values: Floats, mean: Floats, scale: Floats) -> Floats:
    return np.clip(np.nan_to_num((values - mean) / scale), -_LIMIT, _LIMIT)


def _distances(values: Floats, mean: Floats, scale: Floats, components: Floats) -> Floats:
    standard = _standardised(values, mean, scale)
    residual = standard - (standard @ components.T) @ components
    distances: Floats = np.sqrt((residual**2).sum(axis=1))
    return distances
