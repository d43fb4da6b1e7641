"""Applies calibrations: maps scores to probabilities and estimates to quantiles.

`aurum.prediction.training.calibration_fit` fits them.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
LEVELS = np.linspace(0.05, 0.95, 19)
"""The probabilities of the quantiles. The outermost ones bound a 90 % interval."""
COVERAGE = 0.9


@dataclass(frozen=True, slots=True)
class RiskCalibration:
    """A monotone piecewise linear map from scores to probabilities."""

    scores: Floats
    probabilities: Floats

    def __call__(self, scores: Floats) -> Floats:
        """Returns the probability for each score."""
        return np.interp(scores, self.scores, self.probabilities)


@dataclass(frozen=True, slots=True)
class IntervalCalibration:
    """Quantiles of the residual, residuals[bin, level], by bins of the prediction that `edges` separate."""

    edges: Floats
    residuals: Floats

    def __call__(self, predictions: Floats) -> Floats:
        """Returns quantiles[prediction, level] of the true value at LEVELS, at least 0."""
        bins = np.searchsorted(self.edges, predictions, side="right")
        quantiles: Floats = np.maximum(0.0, predictions[:, None] + self.residuals[bins])
        return quantiles
