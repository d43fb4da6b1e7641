"""Selects the columns of histories that a model may use, with a reason for each column that it may not."""

from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression
from scipy.stats import spearmanr

from aurum.prediction.model.features import TIME
from aurum.readings.history import AXES, LABELS, LIFE_NUMBERS, Run
from aurum.runtime.time_units import HOUR_US

Floats = npt.NDArray[np.float64]

NOT_COMMON = "is not in every run"
"""Why a column is not used that some runs lack."""
_LEAK_SHARE = 0.98  # share of the RUL's variance; a column that explains more on its own leaks the outcome
_LEAK_SPREAD = 0.03  # spread of a switch's distance to the failure, as a share of life; below, it leaks
_LEAST_SWITCHES = 6
_MOST_ROWS = 20_000  # that are examined
_CONVERSIONS = {  # factor, offset
    "°C and °F": (1.8, 32.0),
    "°C and K": (1.0, 273.15),
    "bar and psi": (14.5038, 0.0),
    "bar and kPa": (100.0, 0.0),
    "psi and kPa": (6.89476, 0.0),
    "inch and mm": (25.4, 0.0),
    "kW and W (or another factor of 1000)": (1000.0, 0.0),
    "hours and minutes (or another factor of 60)": (60.0, 0.0),
    "m/s and km/h": (3.6, 0.0),
}
_MEDIAN_TOLERANCE = 0.03  # relative tolerance for medians to fit a conversion
_LEAST_DISTANCE = 6.0  # least distance of the groups, in standard deviations of the lower one
_LEAST_OF_UNIT = 2  # stretches in each unit
_STRETCHES, _LEAST_TO_SPLIT = 4, 40  # stretches of a run that has at least so many readings


class UnitChangeError(ValueError):
    """The unit of a sensor changes within the data. The message names the sensor, the machines and a remedy."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The result of the selection.

    Attributes:
        sensors: The columns that a model may use.
        dropped: For each other column, why it is not used.
    """

    sensors: tuple[str, ...]
    dropped: dict[str, str]


def ages_of(run: Run, axis: str) -> Floats:
    """Returns the age at each reading in units of the axis. Without a life counter these are hours since the first."""
    if axis != TIME:
        return run.columns[axis]
    ages: Floats = (run.timestamps - run.timestamps[0]) / HOUR_US
    return ages


def select_columns(runs: Sequence[Run], axis: str, categories: Container[str] = ()) -> Selection:
    """Selects columns. Drops labels, counters, constants, and columns that leak the outcome.

    Args:
        runs: The histories.
        axis: The sensor that counts life, or TIME.
        categories: The columns whose values stand for words.
    """
    common = set.intersection(*(set(run.columns) for run in runs))
    dropped = dict.fromkeys(sorted(set.union(*(set(run.columns) for run in runs)) - common), NOT_COMMON)
    failed = [run for run in runs if run.failed]
    sensors = []
    for name in sorted(common - {axis}):
        reason = _reason_to_drop(name, runs, failed, axis)
        if reason is None and name in categories and failed:
            reason = _word_leak(name, runs, failed, axis)
        if reason is not None:
            dropped[name] = reason
        else:
            sensors.append(name)
    return Selection(tuple(sensors), dropped)


def check_units(runs: Sequence[Run], sensors: Sequence[str]) -> None:
    """Checks that no sensor changes its unit.

    Raises:
        UnitChangeError: The medians of stretches of the data form two groups that differ by a known unit conversion.
    """
    for name in sensors:
        stretches = [
            (_median(part), run.machine_id)
            for run in runs
            for part in np.array_split(run.columns[name], _STRETCHES if len(run.timestamps) >= _LEAST_TO_SPLIT else 1)
        ]
        stretches = sorted(each for each in stretches if not np.isnan(each[0]))
        medians = np.array([median for median, _ in stretches])
        if len(medians) < 2 * _LEAST_OF_UNIT:
            continue
        cut = int(np.diff(medians).argmax()) + 1
        low, high = medians[:cut], medians[cut:]
        gap = high[0] - low[-1]
        if min(len(low), len(high)) < _LEAST_OF_UNIT or gap < _LEAST_DISTANCE * low.std() or gap < 2 * high.std():
            continue
        for units, (factor, offset) in _CONVERSIONS.items():
            expected = _median(low) * factor + offset
            if low[0] > 0 and abs(expected - _median(high)) <= _MEDIAN_TOLERANCE * expected:
                raise UnitChangeError(
                    f"sensor {name} changes its unit: it is about {_median(low):.4g} in {stretches[0][1]} and "
                    f"{_median(high):.4g} in {stretches[-1][1]}, as if in {units}; convert one to the other, or "
                    f"leave the column out"
                )


def _reason_to_drop(name: str, runs: Sequence[Run], failed: Sequence[Run], axis: str) -> str | None:
    """Returns why a column cannot be used as a sensor, or None if it can."""
    values = np.concatenate([run.columns[name] for run in runs])
    if name.lower() in LABELS:
        return "is a label of the outcome"
    if name.lower() in LIFE_NUMBERS:
        return "numbers the lives"
    if name.lower() in AXES or _is_counter(name, runs):
        return "counts life"
    present = values[~np.isnan(values)]
    if not len(present) or present.max() == present.min():
        return "is constant"
    if failed and (leak := _leak(name, runs, failed, axis)):
        return leak
    return None


def _is_counter(name: str, runs: Sequence[Run]) -> bool:
    """Whether a column grows by the same amount with each reading in every run."""
    seen = 0
    for run in runs:
        steps = np.diff(run.columns[name])
        if len(steps) < 3:
            continue
        if np.isnan(steps).any() or steps.min() <= 0 or np.ptp(steps) > 1e-6 * abs(steps[0]):
            return False
        seen += 1
    return seen > 0


def _leak(name: str, runs: Sequence[Run], failed: Sequence[Run], axis: str) -> str | None:
    """Returns a reason if a column predicts the failure better than a real sensor can, else None."""
    distinct = np.unique(np.concatenate([run.columns[name] for run in runs]))
    distinct = distinct[~np.isnan(distinct)]
    if len(distinct) == 2:
        return _switch_leak(name, runs, failed, axis, float(distinct[1]))
    lives = [ages_of(run, axis) for run in failed]
    left = np.concatenate([np.nanmax(each) - each + run.left for each, run in zip(lives, failed, strict=True)])
    values = np.concatenate([run.columns[name] for run in failed])
    group = np.concatenate([np.full(len(each), index) for index, each in enumerate(lives)])
    present = ~np.isnan(values) & ~np.isnan(left)
    left, values, group = left[present], values[present], group[present]
    if len(failed) < 4 or len(left) < 40 or np.ptp(left) == 0:
        return None
    stride = -(-len(left) // _MOST_ROWS)
    left, values, group = left[::stride], values[::stride], group[::stride]
    sign = np.sign(spearmanr(values, left).statistic)
    fitted_on = group % 2 == 0
    if not fitted_on.any() or fitted_on.all() or not np.isfinite(sign) or sign == 0:
        return None
    order = np.argsort(sign * values[fitted_on], kind="stable")
    curve = np.asarray(isotonic_regression(left[fitted_on][order]).x)
    at = (sign * values[fitted_on])[order]
    estimated = np.interp((sign * values)[~fitted_on], at, curve)
    truth = left[~fitted_on]
    explained = 1 - float(((truth - estimated) ** 2).sum() / max(float(((truth - truth.mean()) ** 2).sum()), 1e-12))
    if explained >= _LEAK_SHARE:
        return f"leaks the outcome: alone it explains {explained:.1%} of the variance of the RUL of held-out machines"
    return None


def _word_leak(name: str, runs: Sequence[Run], failed: Sequence[Run], axis: str) -> str | None:
    """Returns a reason if any word of a category leaks the outcome as a switch does, else None."""
    values = np.concatenate([run.columns[name] for run in runs])
    words = np.unique(values[~np.isnan(values)]).tolist()
    return next((leak for word in words if (leak := _switch_leak(name, runs, failed, axis, word))), None)


def _switch_leak(name: str, runs: Sequence[Run], failed: Sequence[Run], axis: str, on: float) -> str | None:
    """Returns a reason if a column with two values is only set at failures, or at a fixed distance before them."""
    switched = [run for run in runs if (run.columns[name] == on).any()]
    if len(switched) < _LEAST_SWITCHES:
        return None
    if all(run.failed for run in switched):
        lives = [ages_of(run, axis) for run in switched]
        before = [
            float(np.nanmax(life) - life[int((run.columns[name] == on).argmax())])
            for life, run in zip(lives, switched, strict=True)
        ]
        median_life = float(np.median([np.nanmax(life) for life in lives]))
        single = all(len(run.timestamps) == 1 for run in switched)
        at_same_distance = np.std(before) < _LEAK_SPREAD * median_life and np.median(before) < 0.5 * median_life
        if (single and len(failed) < len(runs)) or (not single and at_same_distance):
            return "leaks the outcome: it is set only at failures, or at the same distance before each of them"
    return None


def _median(values: Floats) -> float:
    present = values[~np.isnan(values)]
    return float(np.median(present)) if len(present) else float("nan")
