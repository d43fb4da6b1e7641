"""Divides the risk among failure modes.

The probability of a failure in mode k within the horizon, before any other failure, is P(T ≤ h) · P(K = k | T ≤ h): the
risk times the share of the mode among failures within the horizon (the mixture of Larson and Dinse, 1985). The shares
are a multinomial logistic function of how far the sensors are from their healthy means.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_FARTHEST = 8.0  # standard deviations; beyond it a sensor tells no more


@dataclass(frozen=True, slots=True)
class CauseShares:
    """The shares of failure modes among the failures within the horizon.

    Attributes:
        modes: The names of the modes.
        columns: Indices of the features.
        mean: Mean of each of these features in healthy states.
        scale: Their standard deviation.
        coefficients: coefficients[mode, feature] of the standardized features.
        intercepts: intercepts[mode].
    """

    modes: tuple[str, ...]
    columns: npt.NDArray[np.intp]
    mean: Floats
    scale: Floats
    coefficients: Floats
    intercepts: Floats

    def __call__(self, features: Floats) -> Floats:
        """Returns shares[row, mode], which sum to 1, from features[row, feature]."""
        standard = standardize_causes(features[:, self.columns], self.mean, self.scale)
        # Sums over contiguous memory, so that a row's result does not depend on the number of rows
        products = np.ascontiguousarray(standard)[:, None, :] * self.coefficients
        scores = np.ascontiguousarray(products).sum(axis=2) + self.intercepts
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares: Floats = powers / powers.sum(axis=1, keepdims=True)
        return shares


def standardize_causes(features: Floats, mean: Floats, scale: Floats) -> Floats:
    """Returns features in standard deviations from the healthy mean, bounded; 0 where a feature is missing."""
    standard = np.clip((features - mean) / scale, -_FARTHEST, _FARTHEST)
    return np.where(np.isnan(standard), 0.0, standard)
