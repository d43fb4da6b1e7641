"""Rolling-window features, computed by the same code for training and for serving.

Readings are averaged in steps of a machine's life (operating hours, cycles, or hours of time where nothing counts
them). A window is the last WINDOW steps; for each sensor it gives the last value, the mean over SHORT and WINDOW steps,
and over WINDOW steps standard deviation, minimum, maximum and slope (least squares, per step). Sums run over the steps
one by one, so that a result does not depend on how many windows are computed at once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aurum.readings.batch import Timestamps, Values
from aurum.readings.history import AXES, HOUR_US

WINDOW = 32
SHORT = 8
LEAST_STEPS = 3  # a machine with fewer is not known well enough
STATISTICS = ("last", f"mean_{SHORT}", f"mean_{WINDOW}", f"std_{WINDOW}", f"min_{WINDOW}", f"max_{WINDOW}", "slope")
TIME = "time"

Matrix = npt.NDArray[np.float64]
Column = tuple[Timestamps, Values]
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
    gathered: list[tuple[npt.NDArray[np.int64], Values] | None] = []
    for sensor in spec.sensors:
        column = columns.get(sensor)
        if column is None:
            gathered.append(None)
            continue
        times, values = column
        wanted = (times >= started) & ~np.isnan(values)
        gathered.append((np.floor(age_of(times[wanted]) / spec.step).astype(np.int64), values[wanted]))
    present = [index for each in gathered if each is not None for index in (each[0][:1], each[0][-1:])]
    bounds = np.concatenate(present) if present else np.empty(0, np.int64)
    if not len(bounds):
        return nothing
    first, last = int(bounds.min()), int(bounds.max())
    means = np.full((last - first + 1, len(spec.sensors)), np.nan)
    for index, each in enumerate(gathered):
        if each is None or not len(each[0]):
            continue
        steps, values = each
        edges = np.flatnonzero(np.append(True, np.diff(steps) != 0))
        counts = np.diff(np.append(edges, len(steps)))
        means[steps[edges] - first, index] = np.add.reduceat(values, edges) / counts
    ages: Values = np.arange(first + 1, last + 2, dtype=np.float64) * spec.step
    return Steps(ages, means, spec.axis != TIME)


def features_of(steps: Steps, *, only_last: bool = False) -> Matrix:
    """Features of each step (or of the last alone): one row each, columns as FeatureSpec.names."""
    count = len(steps.ages)
    padded = np.vstack([np.full((WINDOW - 1, steps.means.shape[1]), np.nan), steps.means])
    windows = np.moveaxis(np.lib.stride_tricks.sliding_window_view(padded, WINDOW, axis=0), 2, 1)
    rows = slice(count - 1, count) if only_last else slice(0, count)
    ages = steps.ages[rows]
    return _window_features(windows[rows], ages if steps.counted else np.full(len(ages), np.nan))


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
    shape = (rows, sensors)
    count, total, at_sum = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    short_count, short_total = np.zeros(shape), np.zeros(shape)
    low, high, last = np.full(shape, np.inf), np.full(shape, -np.inf), np.full(shape, np.nan)
    for step in range(WINDOW):
        values = windows[:, step, :]
        there = ~np.isnan(values)
        known = np.where(there, values, 0.0)
        count += there
        total += known
        at_sum += np.where(there, float(step), 0.0)
        low = np.where(there, np.minimum(low, known), low)
        high = np.where(there, np.maximum(high, known), high)
        last = np.where(there, values, last)
        if step >= WINDOW - SHORT:
            short_count += there
            short_total += known
    some = count > 0
    divisor = np.where(some, count, 1.0)
    mean, at_mean = total / divisor, at_sum / divisor
    square, cross, at_square = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for step in range(WINDOW):
        values = windows[:, step, :]
        there = ~np.isnan(values)
        off = np.where(there, values - mean, 0.0)
        at_off = np.where(there, step - at_mean, 0.0)
        square += off * off
        cross += off * at_off
        at_square += at_off * at_off
    deviation = np.sqrt(square / divisor)
    slope = np.divide(cross, at_square, out=np.full(shape, np.nan), where=at_square > 0)
    short_mean = np.divide(short_total, short_count, out=np.full(shape, np.nan), where=short_count > 0)
    columns = [np.where(some, each, np.nan) for each in (last, short_mean, mean, deviation, low, high, slope)]
    by_sensor = np.stack(columns, axis=2).reshape(rows, sensors * len(columns))
    return np.column_stack([ages, by_sensor])
