"""Rolling-window features, computed by the same code for training and for serving.

Readings are averaged in steps of a machine's life (operating hours, cycles, or hours of time where nothing counts
them), relative to their operating regime where there are several. For each sensor a row has the last value, the means
over SHORT, MIDDLE and WINDOW steps, the slopes (least squares, per step) over the two longer ones, and the standard
deviation over MIDDLE: what it is now, where it goes, and what is usual for this machine.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aurum.prediction.regimes import Indices, Regimes, settings_at
from aurum.readings.batch import Column, Timestamps, Values
from aurum.readings.history import HOUR_US

WINDOW, MIDDLE, SHORT = 192, 64, 8
LEAST_STEPS = 1  # training sees such short beginnings too, so a machine is predicted right after its overhaul
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
_AT = np.arange(WINDOW, dtype=np.float64)
_ROWS_AT_ONCE = 128  # of windows that are held in memory

Matrix = npt.NDArray[np.float64]
AgeOf = Callable[[Timestamps], Values]


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """What a model's features are made of. axis: the sensor that counts life, or TIME. step: in units of the axis."""

    axis: str
    step: float
    sensors: tuple[str, ...]
    regimes: Regimes | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The features, in the order of the columns."""
        return ("age", *(f"{sensor}.{statistic}" for sensor in self.sensors for statistic in STATISTICS))

    @property
    def queried(self) -> tuple[str, ...]:
        """The sensors whose readings are needed."""
        settings = self.regimes.columns if self.regimes else ()
        return (*dict.fromkeys((*self.sensors, *settings)), *(() if self.axis == TIME else (self.axis,)))


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
    # Sensors are mostly read at the same times:
    shared: tuple[Timestamps, npt.NDArray[np.int64], Indices | None] | None = None
    for index, sensor in enumerate(spec.sensors):
        column = columns.get(sensor)
        if column is None:
            continue
        times, values = column
        if shared is None or not (shared[0] is times or np.array_equal(shared[0], times)):
            regimes = spec.regimes.of(settings_at(spec.regimes, columns, times)) if spec.regimes else None
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


def features_of(steps: Steps, rows: npt.NDArray[np.intp] | None = None) -> Matrix:
    """Features of each step, or of some: one row each, columns as FeatureSpec.names."""
    rows = np.arange(len(steps.ages)) if rows is None else rows
    if not len(rows):
        return np.empty((0, 1 + steps.means.shape[1] * len(STATISTICS)))
    padded = np.vstack([np.full((WINDOW - 1, steps.means.shape[1]), np.nan), steps.means])
    windows = np.moveaxis(np.lib.stride_tricks.sliding_window_view(padded, WINDOW, axis=0), 2, 1)
    ages = steps.ages if steps.counted else np.full(len(steps.ages), np.nan)
    parts = [rows[start : start + _ROWS_AT_ONCE] for start in range(0, len(rows), _ROWS_AT_ONCE)]
    return np.vstack([_window_features(windows[part], ages[part]) for part in parts])


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
    some = there.any(axis=2)
    latest = WINDOW - 1 - there[:, :, ::-1].argmax(axis=2)
    last = np.take_along_axis(values, latest[:, :, None], axis=2)[:, :, 0]
    known = np.where(there, values, 0.0)
    short = _mean(known[:, :, -SHORT:], there[:, :, -SHORT:])
    middle, middle_slope, deviation = _trend(known[:, :, -MIDDLE:], there[:, :, -MIDDLE:])
    whole, whole_slope, _ = _trend(known, there)
    columns = [
        np.where(some, each, np.nan) for each in (last, short, middle, deviation, middle_slope, whole, whole_slope)
    ]
    by_sensor = np.stack(columns, axis=2).reshape(rows, sensors * len(columns))
    return np.column_stack([ages, by_sensor])


def _mean(known: Matrix, there: npt.NDArray[np.bool_]) -> Matrix:
    """Over the last axis of what is there; NaN where nothing is. known: 0 where nothing is."""
    count = there.sum(axis=2)
    mean: Matrix = np.where(count > 0, np.ascontiguousarray(known).sum(axis=2) / np.maximum(count, 1), np.nan)
    return mean


def _trend(known: Matrix, there: npt.NDArray[np.bool_]) -> tuple[Matrix, Matrix, Matrix]:
    """Mean, slope and standard deviation over the last axis."""
    mean = _mean(known, there)
    at = _AT[: known.shape[2]]
    count = np.maximum(there.sum(axis=2), 1)
    at_there = np.where(there, at, 0.0)
    at_mean = at_there.sum(axis=2) / count
    at_square = (at_there * at).sum(axis=2) - count * at_mean**2  # of whole numbers, so exact enough
    off = np.where(there, known - mean[:, :, None], 0.0)
    slope = np.where(at_square > 1e-9, (off * at).sum(axis=2) / np.maximum(at_square, 1e-9), np.nan)
    deviation = np.where(np.isnan(mean), np.nan, np.sqrt((off * off).sum(axis=2) / count))
    return mean, slope, deviation
