"""Anomaly scores: how unusual a state is compared with healthy states, by three criteria.

The distance from the principal components of healthy states (Q statistic; Jackson and Mudholkar, 1979) detects sensors
that no longer correlate as usual. The distance from their center along the components (T²; Hotelling, 1931) detects
usual correlations that go too far. The path length in an isolation forest (Liu, Ting and Zhou, 2008) detects values
that are rare.

Each criterion has a *surprise*: the negative decimal logarithm of the share of held-out healthy states that are more
unusual. Beyond the held-out states it is extrapolated by an exponential tail. The greatest surprise decides.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aurum.prediction.model.trees import Trees

Floats = npt.NDArray[np.float64]
_LIMIT = 8.0  # standard deviations to which features are clipped
SHARES = np.linspace(0, 1, 101)
"""The shares at which the quantiles of models of earlier versions are stored."""
TAIL_SHARE = 0.05
"""The share of the most unusual held-out states to which an exponential tail is fitted."""
_LARGEST = 1 - 2**-40  # score; so that it stays below 1 after rounding


@dataclass(frozen=True, slots=True)
class HeldOutScores:
    """The calibration of the score on healthy states that the model was not fitted to.

    The criteria are Q, path length and T², in this order.

    Attributes:
        variances: Variance of the healthy states along each principal component.
        shares: Shares of states, ascending, at which quantiles are stored.
        quantiles: quantiles[criterion, share].
        tails: tails[criterion], the quantile where the tail begins and the scale of its exponential distribution.
        surprises: Quantiles of the greatest surprise, at `shares`.
        alarm_surprises: Surprises, ascending.
        alarms_a_month: For each of them, how often a healthy machine exceeded it in a month.
    """

    variances: Floats
    shares: Floats
    quantiles: Floats
    tails: Floats
    surprises: Floats
    alarm_surprises: Floats
    alarms_a_month: Floats

    def surprise(self, criteria: Floats) -> Floats:
        """Returns the greatest surprise of each row of criteria[row, criterion]."""
        greatest = np.zeros(len(criteria))
        levels = -np.log10(np.maximum(1 - self.shares, 1e-12))
        for index, (begin, scale) in enumerate(self.tails.tolist()):
            values = criteria[:, index]
            inside = np.interp(np.minimum(values, begin), self.quantiles[index], levels)
            beyond = np.maximum(values - begin, 0.0) / (scale * np.log(10))
            np.maximum(greatest, inside + beyond, out=greatest)
        return greatest

    def score(self, surprise: Floats) -> Floats:
        """Returns the share of held-out healthy states with a smaller surprise; beyond all of them, it approaches 1."""
        largest = float(self.surprises[-1])
        share = np.interp(surprise, self.surprises, self.shares)
        last = 1 - self.shares[-2]  # the share that the last two quantiles resolve
        tail = 1 - last / 2 * 10.0 ** -np.clip(surprise - largest, 0.0, 30.0)
        score: Floats = np.minimum(np.where(surprise > largest, tail, np.minimum(share, 1 - last / 2)), _LARGEST)
        return score

    def threshold(self, false_alarms: float) -> float:
        """Returns the score beyond which healthy machines get at most so many alarms a month; 0 without held-out time.

        Beyond the surprises for which alarms were counted, a surprise that is greater by 1 is ten times as rare.
        """
        rates = self.alarms_a_month
        if not len(rates):
            return 0.0
        enough = np.flatnonzero(rates <= false_alarms)
        if len(enough):
            surprise = float(self.alarm_surprises[enough[0]])
        else:
            surprise = float(self.alarm_surprises[-1] + np.log10(rates[-1] / false_alarms))
        return float(self.score(np.array([surprise]))[0])


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
        held_out: The calibration on held-out states; None for models of earlier versions, which use the three before.
    """

    columns: npt.NDArray[np.intp]
    mean: Floats
    scale: Floats
    components: Floats
    forest: Trees
    distances: Floats
    paths: Floats
    greater: Floats
    held_out: HeldOutScores | None = None

    def __call__(self, features: Floats) -> Floats:
        """Returns for each row the share of healthy states that are less unusual, from 0 to 1."""
        standard = standardize(features.take(self.columns, axis=1), self.mean, self.scale)
        if self.held_out is not None:
            found = criteria(standard, self.components, self.held_out.variances, self.forest)
            return self.held_out.score(self.held_out.surprise(found))
        by_distance = np.interp(residual_distances(standard, self.components), self.distances, SHARES)
        by_path = np.interp(-self.forest(standard), self.paths, SHARES)
        return np.interp(np.maximum(by_distance, by_path), self.greater, SHARES)

    def threshold(self, false_alarms: float) -> float:
        """Returns the score beyond which a state is unusual; 0 for a model of an earlier version.

        Args:
            false_alarms: Allowed false alarms for each machine and month of healthy operation.
        """
        return self.held_out.threshold(false_alarms) if self.held_out is not None else 0.0


def criteria(standard: Floats, components: Floats, variances: Floats, forest: Trees) -> Floats:
    """Returns criteria[row, criterion] of standard[row, feature]: Q, negated path length, and the root of T²."""
    along = standard @ components.T
    residual = standard - along @ components
    return np.stack(
        [
            np.sqrt((residual * residual).sum(axis=1)),
            -forest(standard),
            np.sqrt((along * along / variances).sum(axis=1)),
        ],
        axis=1,
    )


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
