"""Assigns readings to steps of a machine's life, in the way of `steps_of`, while readings still arrive.

The step of a reading depends on readings of other sensors: the life counter, between whose readings the age is
interpolated, and the settings, which decide the operating regime. A reading is settled once all of these have arrived
up to its time. Until then its step is that of the present knowledge.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from aurum.prediction.model.features import TIME, FeatureSpec, hours_of_time
from aurum.prediction.model.regimes import Indices, settings_at
from aurum.readings.batch import Column, Timestamps, Values

Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

NEVER = np.iinfo(np.int64).min
ALWAYS = np.iinfo(np.int64).max
_KEPT = 256  # settled readings of the life counter and of each setting that are kept, for sensors that lag behind
_MOST_PENDING = 4096  # readings of a machine that wait for its life counter or settings
_MOST_STEPS = 2.0**53  # beyond it, steps cannot be told apart
_NOTHING: Column = (np.empty(0, np.int64), np.empty(0))


@dataclass(slots=True)
class UnsettledReadings:
    """The latest readings of one machine, by index in FeatureSpec.queried.

    Attributes:
        references: Readings of the life counter and the settings, without NaN.
        reached: The time of the latest reading of each reference, also if it is NaN.
        pending: Readings of the sensors that are not settled.
        whole: The references of which all readings are kept.
    """

    references: dict[int, Column] = field(default_factory=dict)
    reached: dict[int, int] = field(default_factory=dict)
    pending: dict[int, Column] = field(default_factory=dict)
    whole: set[int] = field(default_factory=set)

    @property
    def overflows(self) -> bool:
        """Whether more readings wait than are kept."""
        return sum(len(times) for times, _ in self.pending.values()) > _MOST_PENDING


class StepLocator:
    """Finds the steps of readings for one specification of features.

    Attributes:
        axis: Index of the life counter in FeatureSpec.queried; None for time.
        settings: Indices of the settings.
        references: Indices of both.
    """

    def __init__(self, spec: FeatureSpec) -> None:
        self._spec = spec
        queried = spec.queried
        self.axis = None if spec.axis == TIME else len(queried) - 1
        self.settings = tuple(queried.index(name) for name in (spec.regimes.columns if spec.regimes else ()))
        self.references = self.settings if self.axis is None else (*self.settings, self.axis)

    def steps(self, ages: Values) -> tuple[Integers, Flags]:
        """Returns the step of each age, and whether it is one. An age may be no number or too great."""
        steps = np.floor(ages / self._spec.step)
        valid = np.abs(steps) < _MOST_STEPS
        return np.where(valid, steps, 0.0).astype(np.int64), valid

    def extend(self, readings: UnsettledReadings, column: int, times: Timestamps, values: Values) -> None:
        """Adds readings of one sensor that are later than its former ones."""
        if column in self.references:
            present = ~np.isnan(values)
            readings.references[column] = _joined(readings.references.get(column), times[present], values[present])
            if column != self.axis:
                readings.reached[column] = int(times[-1])
            elif present.any():  # the age at a time is not known before the next number
                readings.reached[column] = int(times[present][-1])
        if column < len(self._spec.sensors):
            readings.pending[column] = _joined(readings.pending.get(column), times, values)

    def begin_of_run(self, readings: UnsettledReadings) -> int | None:
        """Returns the time at which the life counter last fell, and drops its earlier readings; None if it did not."""
        if self.axis is None or self.axis not in readings.references:
            return None
        times, life = readings.references[self.axis]
        falls = np.flatnonzero(np.diff(life) < 0)
        if not len(falls):
            return None
        begin = int(falls[-1]) + 1
        readings.references[self.axis] = times[begin:], life[begin:]
        readings.whole.add(self.axis)
        return int(times[begin])

    def settled_until(self, readings: UnsettledReadings) -> int:
        """Returns the time up to which, inclusive, readings are settled."""
        return min((readings.reached.get(column, NEVER) for column in self.references), default=ALWAYS)

    def reaches_back(self, readings: UnsettledReadings, start_us: int) -> bool:
        """Whether the references suffice for readings from a time on."""
        for column in self.references:
            times = readings.references.get(column, _NOTHING)[0]
            if column not in readings.whole and (not len(times) or times[0] > start_us):
                return False
        return True

    def locate(self, readings: UnsettledReadings, times: Timestamps) -> tuple[Integers, Flags, Indices | None]:
        """Returns for each time its step, whether it has one, and its regime if there are several."""
        regimes = None
        if self._spec.regimes is not None:
            columns = {
                name: readings.references[column]
                for name, column in zip(self._spec.regimes.columns, self.settings, strict=True)
                if column in readings.references
            }
            regimes = self._spec.regimes.nearest(settings_at(self._spec.regimes, columns, times))
        if self.axis is None:
            return *self.steps(hours_of_time(times)), regimes
        at, life = readings.references.get(self.axis, _NOTHING)
        if not len(at):
            return np.zeros(len(times), np.int64), np.zeros(len(times), np.bool_), regimes
        return *self.steps(np.interp(times, at, life)), regimes

    def trim(self, readings: UnsettledReadings, settled_until: int) -> None:
        """Drops settled readings of the references beyond those that are kept."""
        for column, (times, values) in readings.references.items():
            drop = int(np.searchsorted(times, settled_until, side="right")) - _KEPT
            if drop > 0:
                readings.references[column] = times[drop:], values[drop:]
                readings.whole.discard(column)


def split_at(pending: Mapping[int, Column], settled_until: int) -> tuple[dict[int, Column], dict[int, Column]]:
    """Returns the readings up to a time, inclusive, and the later ones."""
    settled: dict[int, Column] = {}
    later: dict[int, Column] = {}
    for column, (times, values) in sorted(pending.items()):
        index = int(np.searchsorted(times, settled_until, side="right"))
        if index:
            settled[column] = times[:index], values[:index]
        if index < len(times):
            later[column] = times[index:], values[index:]
    return settled, later


def _joined(before: Column | None, times: Timestamps, values: Values) -> Column:
    if before is None or not len(before[0]):
        return times, values
    return np.concatenate([before[0], times]), np.concatenate([before[1], values])
