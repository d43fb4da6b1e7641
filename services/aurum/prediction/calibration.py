"""From scores to probabilities, from estimates to distributions: what `calibrating` found, applied."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
LEVELS = np.linspace(0.05, 0.95, 19)
"""The probabilities of the quantiles of an interval; the outermost bound 90 %."""
COVERAGE = 0.9


@dataclass(frozen=True, slots=True)
class RiskCalibration:
    """A monotone piecewise linear map from scores to probabilities."""

    scores: Floats
    probabilities: Floats

    def __call__(self, scores: Floats) -> Floats:
        return np.interp(scores, self.scores, self.probabilities)


@dataclass(frozen=True, slots=True)
class IntervalCalibration:
    """Quantiles of the residual by the size of the prediction. edges: between the bins. residuals[bin, level]."""

    edges: Floats
    residuals: Floats

    def __call__(self, predictions: Floats) -> Floats:
        """quantiles[prediction, level] of the truth, at LEVELS; not below 0."""
        bins = np.searchsorted(self.edges, predictions, side="right")
        quantiles: Floats = np.maximum(0.0, predictions[:, None] + self.residuals[bins])
        return quantiles
