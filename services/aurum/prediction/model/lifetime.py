"""A Weibull distribution of the life, for machine types of which few failures were observed.

Its parameters are a sample of their posterior distribution, so that the predictions say how little is known. A machine
of age a survives the time t with probability Σ S(a + t) / Σ S(a), summed over the sample.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aurum.prediction.model.calibration import LEVELS

Floats = npt.NDArray[np.float64]
_TIMES = 161  # up to the cap, at which the distribution is computed
_ROWS_AT_ONCE = 128
_LEAST = 1e-12


@dataclass(frozen=True, slots=True)
class Lifetime:
    """The distribution of the life of a machine.

    Attributes:
        shapes: A sample of the shape parameter.
        scales: The scale parameter of each of them, in units of the life.
        horizon: Horizon of the risk.
        cap: Cap of the RUL.
    """

    shapes: Floats
    scales: Floats
    horizon: float
    cap: float

    def __call__(self, ages: Floats) -> tuple[Floats, Floats, Floats]:
        """Returns the risk, the RUL and quantiles[row, level] of it at LEVELS, for machines of these ages."""
        parts = [self._predict(part) for part in _parts(ages)]
        if not parts:
            return np.empty(0), np.empty(0), np.empty((0, len(LEVELS)))
        risk, rul, quantiles = (np.concatenate(each) for each in zip(*parts, strict=True))
        return risk, rul, quantiles

    def survival(self, ages: Floats, times: Floats) -> Floats:
        """Returns survival[age, time], the probability to survive further times."""
        hazard_now = (ages[:, None] / self.scales) ** self.shapes
        least = hazard_now.min(axis=1, keepdims=True)  # for old machines, whose survival is too small for a float
        now = np.exp(least - hazard_now).sum(axis=1)
        later = np.empty((len(ages), len(times)))
        for index, time in enumerate(times.tolist()):
            hazard = ((ages[:, None] + time) / self.scales) ** self.shapes
            later[:, index] = np.exp(np.minimum(least - hazard, 0.0)).sum(axis=1)
        survived: Floats = np.clip(later / now[:, None], 0.0, 1.0)
        return survived

    def quantiles(self, ages: Floats, levels: Floats) -> Floats:
        """Returns quantiles[row, level] of the RUL up to the cap, for machines of these ages."""
        parts = [
            _inverses(1.0 - self.survival(_usable(part), self._times), self._times, levels) for part in _parts(ages)
        ]
        return np.concatenate(parts) if parts else np.empty((0, len(levels)))

    @property
    def _times(self) -> Floats:
        return np.linspace(0.0, self.cap, _TIMES)

    def _predict(self, ages: Floats) -> tuple[Floats, Floats, Floats]:
        ages = _usable(ages)
        quantiles = _inverses(1.0 - self.survival(ages, self._times), self._times, LEVELS)
        risk = 1.0 - self.survival(ages, np.array([self.horizon]))[:, 0]
        return np.clip(risk, _LEAST, 1.0), quantiles[:, len(LEVELS) // 2], quantiles


def _usable(ages: Floats) -> Floats:
    """Returns ages that are known and not negative."""
    usable: Floats = np.maximum(np.nan_to_num(ages), 0.0)
    return usable


def _parts(ages: Floats) -> list[Floats]:
    """Returns the ages in parts that are computed at once."""
    return [ages[start : start + _ROWS_AT_ONCE] for start in range(0, len(ages), _ROWS_AT_ONCE)]


def _inverses(failed: Floats, times: Floats, levels: Floats) -> Floats:
    """Returns the times at which ascending failed[row, time] reaches levels; the last one if it does not."""
    found = [np.interp(levels, row, times, right=float(times[-1])) for row in failed]
    return np.stack(found) if found else np.empty((0, len(levels)))
