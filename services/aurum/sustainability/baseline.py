"""Energy baselines and performance indicators for ISO 50001, by the method of ISO 50006.

The baseline is a least-squares model of energy by relevant variables, such as production and temperature, over a
reference period. The savings of another period are the energy that the model expects less the energy that was used.
The bends of their running sum (CUSUM) show when something changed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_INTERVALS_PER_COEFFICIENT = 6  # minimum number


class BaselineError(ValueError):
    """The data does not suffice for a baseline. The message says what is missing."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """The model energy = intercept + sum of coefficients · variables, for one interval.

    Attributes:
        variables: The names of the variables.
        intercept: Energy of an interval if all variables are 0.
        coefficients: Energy per unit of each variable.
        t: The t-statistic of each coefficient. If its absolute value is below 2, the coefficient may be 0.
        r_squared: The explained share of the variance, adjusted for the number of variables.
        cv_rmse: Standard error relative to the mean (ASHRAE Guideline 14).
        intervals: Number of intervals in the regression.
        ranges: Minimum and maximum of each variable in the reference period.
    """

    variables: tuple[str, ...]
    intercept: float
    coefficients: tuple[float, ...]
    t: tuple[float, ...]
    r_squared: float
    cv_rmse: float
    intervals: int
    ranges: tuple[tuple[float, float], ...]

    def expected_energy(self, values: Mapping[str, Floats]) -> Floats:
        """Returns the energy that the model expects.

        Args:
            values: For each variable of the model, its value in each interval.

        Returns:
            The energy of each interval; a single number if the model has no variables.
        """
        energy: Floats = self.intercept + sum(
            (coefficient * values[name] for name, coefficient in zip(self.variables, self.coefficients, strict=True)),
            start=np.zeros(()),
        )
        return np.broadcast_to(energy, np.shape(next(iter(values.values()))) if values else ()).copy()


@dataclass(frozen=True, slots=True)
class Savings:
    """The savings of a period, in the intervals for which energy and variables are known.

    Attributes:
        expected: The expected energy.
        actual: The energy that was used.
        savings: Expected less actual energy.
        share: Savings relative to the expected energy.
        cusum: Cumulative savings after each interval; NaN if the interval lacks a value.
        intervals: Number of intervals with all values.
        outside: Number of those with a variable outside the baseline's range, where the model is less reliable.
    """

    expected: float
    actual: float
    savings: float
    share: float
    cusum: Floats
    intervals: int
    outside: int


def fit_baseline(energy: Floats, variables: Mapping[str, Floats]) -> Baseline:
    """Fits a baseline. Variables that are constant over the period are left out.

    Args:
        energy: Energy of each interval; NaN if it is not known.
        variables: For each variable, its value in each interval; NaN if it is not known.

    Raises:
        BaselineError: There are too few intervals, the energy does not vary, or the variables are collinear.
    """
    usable = ~np.isnan(energy)
    for values in variables.values():
        usable &= ~np.isnan(values)
    varying = [name for name, values in variables.items() if usable.any() and np.ptp(values[usable]) > 0]
    count, needed = int(usable.sum()), _INTERVALS_PER_COEFFICIENT * (len(varying) + 1)
    if count < needed:
        raise BaselineError(
            f"the baseline period has {count} intervals in which energy"
            f"{''.join(f', {name}' for name in variables)} are known; "
            f"at least {needed} are required: choose a longer period"
        )
    target = energy[usable]
    if np.ptp(target) == 0:
        raise BaselineError("the energy of the baseline period does not vary, so no model can be fitted to it")
    design = np.column_stack([np.ones(count), *(variables[name][usable] for name in varying)])
    solution, _, rank, _ = np.linalg.lstsq(design, target, rcond=None)
    if rank < design.shape[1]:
        raise BaselineError(
            f"the variables {', '.join(varying)} are collinear in the baseline period; remove one of the meters"
        )
    residuals = target - design @ solution
    freedom = count - design.shape[1]
    variance = float((residuals**2).sum()) / freedom
    total = float(((target - target.mean()) ** 2).sum())
    errors = np.sqrt(np.diag(variance * np.linalg.inv(design.T @ design)))
    return Baseline(
        tuple(varying),
        float(solution[0]),
        tuple(solution[1:].tolist()),
        tuple((solution[1:] / np.maximum(errors[1:], 1e-300)).tolist()),
        1 - (float((residuals**2).sum()) / freedom) / (total / (count - 1)),
        float(np.sqrt(variance) / abs(target.mean())) if target.mean() else float("inf"),
        count,
        tuple((float(variables[name][usable].min()), float(variables[name][usable].max())) for name in varying),
    )


def savings(baseline: Baseline, energy: Floats, variables: Mapping[str, Floats]) -> Savings:
    """Computes the savings of another period. The arguments are those of `fit_baseline`."""
    values = {name: variables[name] for name in baseline.variables}
    expected = baseline.expected_energy(values) if values else np.full(len(energy), baseline.intercept)
    usable = ~np.isnan(energy) & ~np.isnan(expected)
    saved = np.where(usable, expected - energy, 0.0)
    cusum = np.where(usable, np.cumsum(saved), np.nan)
    outside = np.zeros(len(energy), dtype=bool)
    for name, (low, high) in zip(baseline.variables, baseline.ranges, strict=True):
        outside |= (variables[name] < low) | (variables[name] > high)
    total = float(expected[usable].sum())
    return Savings(
        total,
        float(energy[usable].sum()),
        float(saved.sum()),
        float(saved.sum()) / total if total else 0.0,
        cusum,
        int(usable.sum()),
        int((outside & usable).sum()),
    )


def by_day(first_hour: int, hourly: Floats, *, mean: bool = False) -> Floats:
    """Sums or averages hourly values by UTC day. A day is NaN if any of its hours is.

    Args:
        first_hour: The first hour, in hours since 1970.
        hourly: Values by hour.
        mean: Whether to average instead of to sum.
    """
    hours: Sequence[int] = range(first_hour, first_hour + len(hourly))
    days = np.array([hour // 24 for hour in hours])
    result = [hourly[days == day].mean() if mean else hourly[days == day].sum() for day in np.unique(days)]
    return np.array(result)
