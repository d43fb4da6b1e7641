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
TAIL_LEVELS = np.array([0.0005, 0.001, 0.002, 0.005, 0.01, 0.02])
"""The probabilities of the quantiles below the lowest of LEVELS. Advice to wait depends on them."""


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


@dataclass(frozen=True, slots=True)
class LowerTail:
    """How likely failures are before the lowest quantile of the RUL, and how far before it.

    The distance has the predictive distribution of an exponential one whose mean is known from few lives: the Lomax
    distribution, P(distance > x) = (1 + x / (lives · mean)) ** -lives. No failure is before now, so the part beyond the
    lowest quantile itself is cut off.

    Attributes:
        level: Probability of a failure before the lowest quantile: that of the quantile or greater.
        mean: Mean distance in units of the RUL, greater than 0.
        lives: Number of lives that it is known from, at least 1.
    """

    level: float
    mean: float
    lives: float

    def __call__(self, lowest: Floats) -> Floats:
        """Returns quantiles[row, level] at TAIL_LEVELS, for the lowest quantile of each row."""
        scale = self.lives * self.mean
        beyond = (1 + lowest[:, None] / scale) ** -self.lives
        farther = TAIL_LEVELS / self.level * (1 - beyond) + beyond
        quantiles: Floats = np.maximum(lowest[:, None] - scale * (farther ** (-1 / self.lives) - 1), 0.0)
        return quantiles
