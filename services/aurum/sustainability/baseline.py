"""Energy baselines and performance indicators after ISO 50001, as ISO 50006 has them.

The baseline is a least-squares model of energy by relevant variables, such as production and temperature, over a period
that is called normal. Against it the energy of another period is told as savings: what the model expects less what was
used, and their running sum (CUSUM), whose bends show when something changed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_ROWS_OF_A_VARIABLE = 6  # that a regression needs at least for each coefficient


class BaselineError(ValueError):
    """Too little is known for a baseline; the message says what would do."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """energy = intercept + sum of coefficients · variables, for one interval of `hours`.

    r_squared: share of the variance that is explained, adjusted for the number of variables. cv_rmse: standard error
    relative to the mean (ASHRAE Guideline 14). t: of each coefficient; below 2 in size it may as well be 0.
    """

    variables: tuple[str, ...]
    intercept: float
    coefficients: tuple[float, ...]
    t: tuple[float, ...]
    r_squared: float
    cv_rmse: float
    intervals: int
    ranges: tuple[tuple[float, float], ...]

    def expected(self, values: Mapping[str, Floats]) -> Floats:
        energy: Floats = self.intercept + sum(
            (coefficient * values[name] for name, coefficient in zip(self.variables, self.coefficients, strict=True)),
            start=np.zeros(()),
        )
        return np.broadcast_to(energy, np.shape(next(iter(values.values()))) if values else ()).copy()


@dataclass(frozen=True, slots=True)
class Savings:
    """expected, actual, savings: energy of the intervals that are known. cusum: after each interval; NaN where it is
    not known. outside: how many of them have a variable beyond the baseline's range, where it says little."""

    expected: float
    actual: float
    savings: float
    share: float
    cusum: Floats
    intervals: int
    outside: int


def fit_baseline(energy: Floats, variables: Mapping[str, Floats]) -> Baseline:
    """energy: of each interval; NaN where it is not known, as in variables. Raises BaselineError.

    A variable that is constant over the period tells nothing and is left out.
    """
    known = ~np.isnan(energy)
    for values in variables.values():
        known &= ~np.isnan(values)
    used = [name for name, values in variables.items() if known.any() and np.ptp(values[known]) > 0]
    count, needed = int(known.sum()), _ROWS_OF_A_VARIABLE * (len(used) + 1)
    if count < needed:
        raise BaselineError(
            f"the baseline period has {count} intervals in which energy"
            f"{''.join(f', {name}' for name in variables)} are known, and needs {needed}; choose a longer one"
        )
    target = energy[known]
    if np.ptp(target) == 0:
        raise BaselineError("the energy of the baseline period does not vary, so nothing can be learnt from it")
    design = np.column_stack([np.ones(count), *(variables[name][known] for name in used)])
    solution, _, rank, _ = np.linalg.lstsq(design, target, rcond=None)
    if rank < design.shape[1]:
        raise BaselineError(f"the variables {', '.join(used)} go together in the baseline period; leave one out")
    residuals = target - design @ solution
    freedom = count - design.shape[1]
    variance = float((residuals**2).sum()) / freedom
    total = float(((target - target.mean()) ** 2).sum())
    errors = np.sqrt(np.diag(variance * np.linalg.inv(design.T @ design)))
    return Baseline(
        tuple(used),
        float(solution[0]),
        tuple(solution[1:].tolist()),
        tuple((solution[1:] / np.maximum(errors[1:], 1e-300)).tolist()),
        1 - (float((residuals**2).sum()) / freedom) / (total / (count - 1)),
        float(np.sqrt(variance) / abs(target.mean())) if target.mean() else float("inf"),
        count,
        tuple((float(variables[name][known].min()), float(variables[name][known].max())) for name in used),
    )


def savings(baseline: Baseline, energy: Floats, variables: Mapping[str, Floats]) -> Savings:
    """Of another period, interval by interval as in `fit_baseline`."""
    values = {name: variables[name] for name in baseline.variables}
    expected = baseline.expected(values) if values else np.full(len(energy), baseline.intercept)
    known = ~np.isnan(energy) & ~np.isnan(expected)
    saved = np.where(known, expected - energy, 0.0)
    cusum = np.where(known, np.cumsum(saved), np.nan)
    beyond = np.zeros(len(energy), dtype=bool)
    for name, (low, high) in zip(baseline.variables, baseline.ranges, strict=True):
        beyond |= (variables[name] < low) | (variables[name] > high)
    total = float(expected[known].sum())
    return Savings(
        total,
        float(energy[known].sum()),
        float(saved.sum()),
        float(saved.sum()) / total if total else 0.0,
        cusum,
        int(known.sum()),
        int((beyond & known).sum()),
    )


def by_day(first_hour: int, hourly: Floats, *, mean: bool = False) -> Floats:
    """Hours since 1970 summed, or averaged, to days of UTC; NaN if any hour of a day is."""
    hours: Sequence[int] = range(first_hour, first_hour + len(hourly))
    days = np.array([hour // 24 for hour in hours])
    result = [hourly[days == day].mean() if mean else hourly[days == day].sum() for day in np.unique(days)]
    return np.array(result)
