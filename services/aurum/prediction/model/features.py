"""Rolling-window features, computed by the same code for training and for serving.

Readings are averaged in steps of a machine's life: operating hours, cycles, or hours of time without a life counter.
If there are several operating regimes, readings are first expressed relative to their regime. For each sensor a row has
the last value, the means over SHORT, MIDDLE and WINDOW steps, the slopes (least squares, per step) over MIDDLE and
WINDOW, and the standard deviation over MIDDLE. These describe the present state, its trend, and what is usual for the
machine. A model may have further features that the same windows determine: a wear index with the same statistics, and
for each sensor its deviation from what is usual for the machine: the mean over SHORT minus that over WINDOW steps. The
beginning of a machine's life is not used, since it is in the windows of young machines only.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from aurum.prediction.model.regimes import Indices, Regimes, settings_at
from aurum.prediction.model.wear_index import WEAR_INDEX, WearIndex
from aurum.readings.batch import Column, Timestamps, Values
from aurum.runtime.time_units import HOUR_US

WINDOW, MIDDLE, SHORT = 192, 64, 8
LEAST_STEPS = 1  # training includes such short histories, so machines are predicted right after an overhaul
STATISTICS = (
    "last",
    f"mean_{SHORT}",
    f"mean_{MIDDLE}",
    f"std_{MIDDLE}",
    f"slope_{MIDDLE}",
    f"mean_{WINDOW}",
    f"slope_{WINDOW}",
)
TIME = "time"
DEVIATION = "deviation"
_SHORT_MEAN, _WINDOW_MEAN = STATISTICS.index(f"mean_{SHORT}"), STATISTICS.index(f"mean_{WINDOW}")
_AT = np.arange(WINDOW, dtype=np.float64)
_GREATEST_SINGLE = float(np.finfo(np.float32).max)
_ROWS_AT_ONCE = 128  # windows that are held in memory
_SERIES_AT_ONCE = 128  # windows of a sensor whose intermediate results fit into the processor's cache

Matrix = npt.NDArray[np.float64]
AgeOf = Callable[[Timestamps], Values]


@dataclass(frozen=True, slots=True)
class Derived:
    """Features beyond the statistics of the sensors.

    Attributes:
        index: The wear index, if there is one.
        deviations: Whether there is a deviation from what is usual for the machine, of each sensor and of the index.
    """

    index: WearIndex | None = None
    deviations: bool = False


NOTHING_DERIVED = Derived()


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """How a model's features are computed.

    Attributes:
        axis: The sensor that counts life, or TIME.
        step: The length of a step, in units of the axis.
        sensors: The sensors.
        regimes: The operating regimes, if there are several.
        derived: Further features.
        single: Whether the means of steps are rounded to single precision, so that windows need half of the memory.
    """

    axis: str
    step: float
    sensors: tuple[str, ...]
    regimes: Regimes | None = None
    derived: Derived = NOTHING_DERIVED
    single: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the features, in the order of the columns."""
        measured = self.sensors if self.derived.index is None else (*self.sensors, WEAR_INDEX)
        deviations = (f"{name}.{DEVIATION}" for name in measured) if self.derived.deviations else ()
        return ("age", *(f"{name}.{statistic}" for name in measured for statistic in STATISTICS), *deviations)

    @property
    def queried(self) -> tuple[str, ...]:
        """The sensors whose readings are needed."""
        settings = self.regimes.columns if self.regimes else ()
        return (*dict.fromkeys((*self.sensors, *settings)), *(() if self.axis == TIME else (self.axis,)))


@dataclass(frozen=True, slots=True)
class Steps:
    """Readings averaged by step.

    Attributes:
        ages: Age at the end of each step, in units of the axis.
        means: means[step, sensor].
        counted: Whether a sensor counts the machine's life. If not, ages are times and not used as a feature.
        derived: Features beyond the statistics of the sensors.
    """

    ages: Values
    means: Matrix
    counted: bool
    derived: Derived = NOTHING_DERIVED


class Window(NamedTuple):
    """The last steps of a machine.

    Attributes:
        age: Age at the end of the last step; NaN without a life counter.
        means: means[step, sensor] of the last WINDOW steps.
        derived: Features beyond the statistics of the sensors.
    """

    age: float
    means: Matrix
    derived: Derived = NOTHING_DERIVED


def steps_of(columns: Mapping[str, Column], spec: FeatureSpec) -> Steps:
    """Returns the steps of a machine's current run up to its last reading. Steps without readings are NaN.

    Args:
        columns: For each sensor, sorted times in µs since 1970 and values. Sensors of the spec may be missing.
        spec: The specification of the features.
    """
    nothing = Steps(np.empty(0), np.empty((0, len(spec.sensors))), spec.axis != TIME, spec.derived)
    started, age_of = _axis(columns, spec)
    if age_of is None:
        return nothing
    steps_of_sensors: list[npt.NDArray[np.int64]] = []
    values_of_sensors: list[Values] = []
    index_of_sensors: list[int] = []
    # Most sensors are read at the same times, so the steps of the last times are reused
    shared: tuple[Timestamps, npt.NDArray[np.int64], Indices | None] | None = None
    for index, sensor in enumerate(spec.sensors):
        column = columns.get(sensor)
        if column is None:
            continue
        times, values = column
        if shared is None or not (shared[0] is times or np.array_equal(shared[0], times)):
            regimes = spec.regimes.nearest(settings_at(spec.regimes, columns, times)) if spec.regimes else None
            shared = times, np.floor(age_of(times) / spec.step).astype(np.int64), regimes
        _, steps, regimes = shared
        if spec.regimes is not None and regimes is not None:
            values = spec.regimes.relative(sensor, values, regimes)
        wanted = ~np.isnan(values)
        if started > 0:
            wanted &= times >= started
        if not wanted.all():
            steps, values = steps[wanted], values[wanted]
        if len(values):
            steps_of_sensors.append(steps)
            values_of_sensors.append(values)
            index_of_sensors.append(index)
    if not steps_of_sensors:
        return nothing
    first = min(int(steps[0]) for steps in steps_of_sensors)
    last = max(int(steps[-1]) for steps in steps_of_sensors)
    count = last - first + 1
    # One sum over all sensors with a bin for each sensor and step, in the order of the readings
    bins = np.concatenate(
        [steps - first + index * count for index, steps in zip(index_of_sensors, steps_of_sensors, strict=True)]
    )
    means = _means_by_bin(bins, np.concatenate(values_of_sensors), count * len(spec.sensors), single=spec.single)
    means = means.reshape(len(spec.sensors), count).T
    ages: Values = np.arange(first + 1, last + 2, dtype=np.float64) * spec.step
    return Steps(ages, means, spec.axis != TIME, spec.derived)


def _means_by_bin(bins: npt.NDArray[np.int64], values: Values, size: int, *, single: bool) -> Values:
    """Returns the mean of the values in each bin; NaN for a bin without any. single: See FeatureSpec."""
    sums = np.bincount(bins, weights=values, minlength=size)
    counts = np.bincount(bins, minlength=size)
    means: Values = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return to_single(means).astype(np.float64) if single else means


def to_single(means: Matrix) -> npt.NDArray[np.float32]:
    """Returns means in single precision. Those beyond its range get its greatest magnitude."""
    return np.clip(means, -_GREATEST_SINGLE, _GREATEST_SINGLE).astype(np.float32)


def features_of(steps: Steps, rows: npt.NDArray[np.intp] | None = None) -> Matrix:
    """Returns features[row, feature] of all steps, or of those in `rows`, in the order of FeatureSpec.names."""
    rows = np.arange(len(steps.ages)) if rows is None else rows
    means = _with_index(steps.means, steps.derived)
    if not len(rows):
        return _rows_of_windows(np.empty((0, WINDOW, means.shape[1])), np.empty(0), steps.derived)
    padded = np.vstack([np.full((WINDOW - 1, means.shape[1]), np.nan), means])
    windows = np.moveaxis(np.lib.stride_tricks.sliding_window_view(padded, WINDOW, axis=0), 2, 1)
    ages = steps.ages if steps.counted else np.full(len(steps.ages), np.nan)
    parts = [rows[start : start + _ROWS_AT_ONCE] for start in range(0, len(rows), _ROWS_AT_ONCE)]
    return np.vstack([_rows_of_windows(windows[part], ages[part], steps.derived) for part in parts])


def window_of(steps: Steps) -> Window:
    """Returns the window of the last step, for `features_of_windows`."""
    window = np.full((WINDOW, steps.means.shape[1]), np.nan)
    tail = steps.means[-WINDOW:]
    window[WINDOW - len(tail) :] = tail
    return Window(float(steps.ages[-1]) if steps.counted else float("nan"), window, steps.derived)


def features_of_windows(windows: Sequence[Window]) -> Matrix:
    """Returns features[machine, feature] of the last steps of several machines, which have the same specification."""
    ages = np.array([window.age for window in windows])
    return window_features(np.stack([window.means for window in windows]), ages, windows[0].derived)


def _axis(columns: Mapping[str, Column], spec: FeatureSpec) -> tuple[int, AgeOf | None]:
    """Returns when the current run began, in µs, and a function from times to ages, or None without a life counter.

    The start is 0 if the readings do not include it.
    """
    if spec.axis == TIME:
        return 0, hours_of_time
    column = columns.get(spec.axis)
    if column is None:
        return 0, None
    times, life = column
    present = ~np.isnan(life)
    times, life = times[present], life[present]
    if not len(times):
        return 0, None
    falls = np.flatnonzero(np.diff(life) < 0)
    begin = int(falls[-1]) + 1 if len(falls) else 0
    started = int(times[begin]) if len(falls) else 0
    times, life = times[begin:], life[begin:]
    return started, lambda at: np.interp(at, times, life)


def hours_of_time(at: Timestamps) -> Values:
    """Returns times in hours since 1970, which are used as age without a life counter."""
    hours: Values = at / HOUR_US
    return hours


def window_features(windows: Matrix, ages: Values, derived: Derived = NOTHING_DERIVED) -> Matrix:
    """Returns features[row, feature] of windows[row, step, sensor]."""
    return _rows_of_windows(_with_index(windows, derived), ages, derived)


def _with_index(means: Matrix, derived: Derived) -> Matrix:
    """Returns means[..., sensor] with the wear index as a further sensor, if there is one."""
    return means if derived.index is None else np.concatenate([means, derived.index(means)[..., None]], axis=-1)


def _rows_of_windows(windows: Matrix, ages: Values, derived: Derived) -> Matrix:
    """Returns features[row, feature] of windows[row, step, sensor], in which the wear index is the last sensor."""
    rows, _, sensors = windows.shape
    # Steps are made contiguous, so that a row's result does not depend on the number of rows
    values = np.ascontiguousarray(np.moveaxis(windows, 1, 2)).reshape(rows * sensors, WINDOW)
    parts = [_statistics(values[start : start + _SERIES_AT_ONCE]) for start in range(0, len(values), _SERIES_AT_ONCE)]
    statistics = np.concatenate(parts, axis=1) if parts else np.empty((len(STATISTICS), 0))
    columns = [ages, statistics.T.reshape(rows, sensors * len(STATISTICS))]
    if derived.deviations:
        columns.append(deviations_of(statistics[_SHORT_MEAN], statistics[_WINDOW_MEAN]).reshape(rows, sensors))
    return np.column_stack(columns)


def deviations_of(recent: Matrix, usual: Matrix) -> Matrix:
    """Returns how far recent means are from those over the whole window."""
    deviations: Matrix = recent - usual
    return deviations


def _statistics(values: Matrix) -> Matrix:
    """Returns statistics[statistic, row] of values[row, step], in the order of STATISTICS."""
    whole = ~np.isnan(values).any(axis=1)
    if whole.all():
        return _of_whole_windows(values)
    if not whole.any():
        return _of_windows(values)
    statistics = np.empty((len(STATISTICS), len(values)))
    statistics[:, whole] = _of_whole_windows(values[whole])
    statistics[:, ~whole] = _of_windows(values[~whole])
    return statistics


def _of_windows(values: Matrix) -> Matrix:
    """Returns the statistics of windows in which steps may be missing."""
    present = ~np.isnan(values)
    latest = WINDOW - 1 - present[:, ::-1].argmax(axis=1)
    last = values[np.arange(len(values)), latest]
    filled = np.where(present, values, 0.0)
    short = _mean(filled[:, -SHORT:], present[:, -SHORT:].sum(axis=1))
    middle, middle_slope, off = _trend(filled[:, -MIDDLE:], present[:, -MIDDLE:])
    count = np.maximum(present[:, -MIDDLE:].sum(axis=1), 1)
    deviation = np.where(np.isnan(middle), np.nan, np.sqrt((off * off).sum(axis=1) / count))
    whole, whole_slope, _ = _trend(filled, present)
    statistics = np.stack([last, short, middle, deviation, middle_slope, whole, whole_slope])
    statistics[:, ~present.any(axis=1)] = np.nan
    return statistics


def _of_whole_windows(values: Matrix) -> Matrix:
    """Returns the statistics of windows in which no step is missing, the same as `_of_windows`."""
    middle, middle_slope, off = _whole_trend(values[:, -MIDDLE:])
    deviation = np.sqrt((off * off).sum(axis=1) / MIDDLE)
    whole, whole_slope, _ = _whole_trend(values)
    short = np.ascontiguousarray(values[:, -SHORT:]).sum(axis=1) / SHORT
    return np.stack([values[:, -1], short, middle, deviation, middle_slope, whole, whole_slope])


def _mean(filled: Matrix, count: npt.NDArray[np.int64]) -> Values:
    """Returns the mean of each row of the existing values; NaN without any. filled: 0 for missing values."""
    mean: Values = np.where(count > 0, np.ascontiguousarray(filled).sum(axis=1) / np.maximum(count, 1), np.nan)
    return mean


def _trend(filled: Matrix, present: npt.NDArray[np.bool_]) -> tuple[Values, Values, Matrix]:
    """Returns the mean and the slope of each row, and the differences from the mean."""
    count = present.sum(axis=1)
    mean = _mean(filled, count)
    count = np.maximum(count, 1)
    at = _AT[: filled.shape[1]]
    there = present.astype(np.float64)
    at_mean = there @ at / count  # sums of integers are exact in any order
    at_square = there @ (at * at) - count * at_mean**2
    off = np.where(present, filled - mean[:, None], 0.0)
    slope = np.where(at_square > 1e-9, (off * at).sum(axis=1) / np.maximum(at_square, 1e-9), np.nan)
    return mean, slope, off


def _whole_trend(values: Matrix) -> tuple[Values, Values, Matrix]:
    """Returns the mean and the slope of each row, and the differences from the mean, if no step is missing."""
    steps = values.shape[1]
    mean: Values = np.ascontiguousarray(values).sum(axis=1) / steps
    at = _AT[:steps]
    at_square = at @ at - steps * (at.sum() / steps) ** 2
    off = values - mean[:, None]
    slope: Values = (off * at).sum(axis=1) / at_square
    return mean, slope, off
