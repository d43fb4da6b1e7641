"""Rolling-window features, computed by the same code for training and for serving.

Readings are averaged in steps of a machine's life (operating hours, cycles, or hours of time where nothing counts
them). A window is the last WINDOW steps; for each sensor it gives the last value, the mean over SHORT and WINDOW steps,
and over WINDOW steps standard deviation, minimum, maximum and slope (least squares, per step).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aurum.readings.batch import Column, Timestamps, Values
from aurum.readings.history import AXES, HOUR_US

WINDOW = 32
SHORT = 8
LEAST_STEPS = 1  # training sees such short beginnings too, so a machine is predicted right after its overhaul
STATISTICS = ("last", f"mean_{SHORT}", f"mean_{WINDOW}", f"std_{WINDOW}", f"min_{WINDOW}", f"max_{WINDOW}", "slope")
TIME = "time"
_AT = np.arange(WINDOW, dtype=np.float64)

Matrix = npt.NDArray[np.float64]
AgeOf = Callable[[Timestamps], Values]


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """What a model's features are made of. axis: the sensor that counts life, or TIME. step: in units of the axis."""

    axis: str
    step: float
    sensors: tuple[str, ...]

    @property
    def unit(self) -> str:
        return AXES.get(self.axis, "h")

    @property
    def names(self) -> tuple[str, ...]:
        """The features, in the order of the columns."""
        return ("age", *(f"{sensor}.{statistic}" for sensor in self.sensors for statistic in STATISTICS))

    @property
    def queried(self) -> tuple[str, ...]:
        """The sensors whose readings are needed."""
        return self.sensors if self.axis == TIME else (*self.sensors, self.axis)


@dataclass(frozen=True, slots=True)
class Steps:
    """Readings averaged by step. ages: at the end of each step, in units of the axis. means[step, sensor].

    counted: whether a sensor counts the machine's life; if not, ages are times and no feature.
    """

    ages: Values
    means: Matrix
    counted: bool


def steps_of(columns: Mapping[str, Column], spec: FeatureSpec) -> Steps:
    """The steps of a machine's current run, up to its last reading; empty ones in between are NaN.

    columns: sensor → (times in µs, values), each sorted; sensors of the spec may be missing.
    """
    nothing = Steps(np.empty(0), np.empty((0, len(spec.sensors))), spec.axis != TIME)
    started, age_of = _axis(columns, spec)
    if age_of is None:
        return nothing
    steps_of_sensors: list[npt.NDArray[np.int64]] = []
    values_of_sensors: list[Values] = []
    index_of_sensors: list[int] = []
    shared: tuple[Timestamps, npt.NDArray[np.int64]] | None = None  # sensors are mostly read at the same times
    for index, sensor in enumerate(spec.sensors):
        column = columns.get(sensor)
        if column is None:
            continue
        times, values = column
        if shared is None or not (shared[0] is times or np.array_equal(shared[0], times)):
            shared = times, np.floor(age_of(times) / spec.step).astype(np.int64)
        steps = shared[1]
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
    # One sum over all sensors, each step of each a bin of its own, in the order of the readings:
    bins = np.concatenate(
        [steps - first + index * count for index, steps in zip(index_of_sensors, steps_of_sensors, strict=True)]
    )
    size = count * len(spec.sensors)
    sums = np.bincount(bins, weights=np.concatenate(values_of_sensors), minlength=size)
    counts = np.bincount(bins, minlength=size)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).reshape(len(spec.sensors), count).T
    ages: Values = np.arange(first + 1, last + 2, dtype=np.float64) * spec.step
    return Steps(ages, means, spec.axis != TIME)


def features_of(steps: Steps) -> Matrix:
    """Features of each step: one row each, columns as FeatureSpec.names."""
    padded = np.vstack([np.full((WINDOW - 1, steps.means.shape[1]), np.nan), steps.means])
    windows = np.moveaxis(np.lib.stride_tricks.sliding_window_view(padded, WINDOW, axis=0), 2, 1)
    ages = steps.ages if steps.counted else np.full(len(steps.ages), np.nan)
    return _window_features(windows, ages)


def window_of(steps: Steps) -> tuple[float, Matrix]:
    """Age and window of the last step, for `features_of_windows`."""
    window = np.full((WINDOW, steps.means.shape[1]), np.nan)
    tail = steps.means[-WINDOW:]
    window[WINDOW - len(tail) :] = tail
    return float(steps.ages[-1]) if steps.counted else float("nan"), window


def features_of_windows(windows: Sequence[tuple[float, Matrix]]) -> Matrix:
    """Features of many machines' last steps at once."""
    return _window_features(np.stack([window for _, window in windows]), np.array([age for age, _ in windows]))


def _axis(columns: Mapping[str, Column], spec: FeatureSpec) -> tuple[int, AgeOf | None]:
    """When the current run began, and how to tell the age at given times."""
    if spec.axis == TIME:
        return 0, hours_of_time
    column = columns.get(spec.axis)
    if column is None:
        return 0, None
    times, life = column
    there = ~np.isnan(life)
    times, life = times[there], life[there]
    if not len(times):
        return 0, None
    falls = np.flatnonzero(np.diff(life) < 0)
    begin = int(falls[-1]) + 1 if len(falls) else 0
    started = int(times[begin]) if len(falls) else 0
    times, life = times[begin:], life[begin:]
    return started, lambda at: np.interp(at, times, life)


def hours_of_time(at: Timestamps) -> Values:
    """What stands for age where nothing counts it."""
    hours: Values = at / HOUR_US
    return hours


def _window_features(windows: Matrix, ages: Values) -> Matrix:
    """windows[row, step, sensor] → features[row, feature]."""
    rows, _, sensors = windows.shape
    # Reductions along contiguous steps, whatever the number of rows: each result depends on its own window alone.
    values = np.ascontiguousarray(np.moveaxis(windows, 1, 2))
    there = ~np.isnan(values)
    known = np.where(there, values, 0.0)
    count = there.sum(axis=2)
    some = count > 0
    divisor = np.where(some, count, 1)
    mean = known.sum(axis=2) / divisor
    at_mean = np.where(there, _AT, 0.0).sum(axis=2) / divisor
    off = np.where(there, values - mean[:, :, None], 0.0)
    at_off = np.where(there, _AT - at_mean[:, :, None], 0.0)
    deviation = np.sqrt((off * off).sum(axis=2) / divisor)
    at_square = (at_off * at_off).sum(axis=2)
    slope = np.where(at_square > 0, (off * at_off).sum(axis=2) / np.where(at_square > 0, at_square, 1.0), np.nan)
    short_count = there[:, :, -SHORT:].sum(axis=2)
    short_sum = np.ascontiguousarray(known[:, :, -SHORT:]).sum(axis=2)
    short_mean = np.where(short_count > 0, short_sum / np.maximum(short_count, 1), np.nan)
    low = np.where(there, values, np.inf).min(axis=2)
    high = np.where(there, values, -np.inf).max(axis=2)
    latest = WINDOW - 1 - there[:, :, ::-1].argmax(axis=2)
    last = np.take_along_axis(values, latest[:, :, None], axis=2)[:, :, 0]
    columns = [np.where(some, each, np.nan) for each in (last, short_mean, mean, deviation, low, high, slope)]
    by_sensor = np.stack(columns, axis=2).reshape(rows, sensors * len(columns))
    return np.column_stack([ages, by_sensor])
