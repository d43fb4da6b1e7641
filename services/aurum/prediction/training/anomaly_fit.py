"""Trains anomaly models on the features of healthy states."""

import numpy as np

from aurum.prediction.model.anomaly import SHARES, AnomalyModel, Floats, residual_distances, standardize
from aurum.prediction.model.trees import Trees
from aurum.prediction.training.forest import fit_forest

_KEPT_VARIANCE = 0.9


def fit_anomaly(features: Floats, columns: list[int], seed: int) -> tuple[AnomalyModel, str]:
    """Trains an anomaly model on the features of healthy states. Returns it with the text of its forest."""
    healthy = features[:, columns]
    present = ~np.isnan(healthy)
    count = np.maximum(present.sum(axis=0), 1)
    mean = np.where(present, healthy, 0.0).sum(axis=0) / count
    scale = np.sqrt((np.where(present, healthy - mean, 0.0) ** 2).sum(axis=0) / count)
    scale[scale < 1e-12] = 1.0
    standard = standardize(healthy, mean, scale)
    _, singular, components = np.linalg.svd(standard, full_matrices=False)
    share = np.cumsum(singular**2) / max(float((singular**2).sum()), 1e-12)
    kept_components = components[: int(np.searchsorted(share, _KEPT_VARIANCE)) + 1]
    text = fit_forest(standard, seed)
    forest = Trees(text)
    distances, paths = residual_distances(standard, kept_components), -forest(standard)
    of_distances, of_paths = np.quantile(distances, SHARES), np.quantile(paths, SHARES)
    greater = np.maximum(np.interp(distances, of_distances, SHARES), np.interp(paths, of_paths, SHARES))
    return (
        AnomalyModel(
            np.array(columns, dtype=np.intp),
            mean,
            scale,
            kept_components,
            forest,
            of_distances,
            of_paths,
            np.quantile(greater, SHARES),
        ),
        text,
    )
