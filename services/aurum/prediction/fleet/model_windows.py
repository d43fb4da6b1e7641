"""The windows of all machines that one model scores, fed with readings as they arrive.

Usually the sensors of a machine are read together, so each reading comes with the life counter and the settings of the
same time. Such readings are handled for all machines at once. Those of other machines are handled machine by machine,
as `UnsettledReadings`. The result is the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from aurum.prediction.fleet import metrics
from aurum.prediction.fleet.series_rows import LatestReadings, SortedReadings, sort_readings
from aurum.prediction.fleet.step_locator import NEVER, Flags, Integers, StepLocator, UnsettledReadings, split_at
from aurum.prediction.fleet.step_windows import NO_STEP, Rows, StepWindows
from aurum.prediction.model.features import TIME, WINDOW, FeatureSpec, Matrix, hours_of_time, window_features
from aurum.prediction.model.regimes import Indices
from aurum.readings.batch import Column, Timestamps, Values

_KEY_BITS = 40  # of a time within the readings that are added together, in µs: twelve days
_MISALIGNED = 2  # back-fills because of sensors that are not read together, after which a machine is handled alone


@dataclass(frozen=True, slots=True)
class AddedReadings:
    """What became of readings.

    Attributes:
        late: Rows with readings that belong before others; their windows have to be filled again.
        unsettled: Rows whose life counter or settings lag too far behind.
    """

    late: frozenset[int]
    unsettled: frozenset[int]


class ModelWindows:
    """The windows of machines as rows, and the latest reading of each of their sensors."""

    def __init__(self, spec: FeatureSpec, capacity: int) -> None:
        """Creates windows for at most `capacity` machines."""
        self.spec = spec
        self._locator = StepLocator(spec)
        self._column_of = {sensor: column for column, sensor in enumerate(spec.queried)}
        shape = capacity, len(spec.queried)
        self._windows = StepWindows(len(spec.sensors), capacity, single=spec.single)
        self._latest = LatestReadings(np.empty(shape, np.int64), np.empty(shape, np.int64), np.empty(shape))
        self._began = np.empty(capacity, np.int64)  # when the present run began
        self._misaligned = np.zeros(capacity, np.int64)
        self._unsettled: dict[int, UnsettledReadings] = {}
        self._waits = np.zeros(capacity, np.bool_)  # whether readings are pending

    @staticmethod
    def row_bytes(spec: FeatureSpec) -> int:
        """Returns the memory of one machine, in bytes."""
        return StepWindows.row_bytes(len(spec.sensors), single=spec.single) + 24 * len(spec.queried) + 24

    def column_of(self, sensor: str) -> int:
        """Returns the index of a sensor in FeatureSpec.queried, or -1."""
        return self._column_of.get(sensor, -1)

    def clear(self, row: int) -> None:
        """Removes all readings of a machine."""
        self._windows.clear(row)
        self._latest.time[row] = NEVER
        self._latest.number_time[row] = NEVER
        self._latest.number[row] = np.nan
        self._began[row] = NEVER
        self._waits[row] = False
        self._unsettled.pop(row, None)

    def release(self, row: int) -> None:
        """Removes a machine, so that the row can be used for another one."""
        self.clear(row)
        self._misaligned[row] = 0

    def install(self, row: int, columns: Mapping[str, Column]) -> bool:
        """Replaces all readings of a machine. Returns False if too many of them cannot be settled."""
        self.clear(row)
        readings = UnsettledReadings(whole=set(self._locator.references))
        for sensor, (times, values) in columns.items():
            column = self.column_of(sensor)
            if column >= 0 and len(times):
                where = np.full(len(times), row), np.full(len(times), column)
                self._latest.note(SortedReadings(*where, times, values))
                self._locator.extend(readings, column, times, values)
        self._settle(row, readings)
        return not readings.overflows

    def add(self, rows: Rows, columns: Rows, times: Timestamps, values: Values) -> AddedReadings:
        """Adds readings in the order of the stream, each of a row and a column of FeatureSpec.queried."""
        added, late = sort_readings(SortedReadings(rows, columns, times, values), self._latest)
        unsettled: set[int] = set()
        if len(added.rows):
            alone = self._alone(added)
            self._add_together(added.part(~alone))
            apart = added.part(alone)
            for start, end in apart.spans():
                row = int(apart.rows[start])
                readings = self._unsettled.get(row) or self._from_latest(row)
                for first, after in apart.column_spans(start, end):
                    times_of, values_of = apart.times[first:after], apart.values[first:after]
                    self._locator.extend(readings, int(apart.columns[first]), times_of, values_of)
                if not self._settle(row, readings):
                    late.add(row)
                    self._misaligned[row] += 1
                elif readings.overflows:
                    unsettled.add(row)
            self._latest.note(added)
        return AddedReadings(frozenset(late), frozenset(unsettled))

    def as_of(self, rows: Rows) -> Integers:
        """Returns the time of the latest reading of each row in µs since 1970; 0 without readings."""
        latest: Integers = self._latest.time[rows].max(axis=1)
        return np.maximum(latest, 0)

    def present(self, rows: Rows) -> Flags:
        """Returns present[row, column]: whether there is any reading."""
        present: Flags = self._latest.time[rows] != NEVER
        return present

    def features(self, rows: Rows) -> tuple[Rows, Matrix]:
        """Returns those of the rows that have steps, and features[row, feature] of these."""
        waiting = {row: self._provisional(row) for row in rows[self._waits[rows]].tolist()}
        last = self._windows.last_step[rows].copy()
        for index in np.flatnonzero(self._waits[rows]).tolist():
            last[index] = waiting[int(rows[index])].last_step[0]
        has_steps = last != NO_STEP
        rows, last = rows[has_steps], last[has_steps]
        windows = np.full((len(rows), WINDOW, len(self.spec.sensors)), np.nan)
        settled = ~self._waits[rows]
        if settled.all():
            windows = self._windows.windows(rows)
        else:
            windows[settled] = self._windows.windows(rows[settled])
            for index in np.flatnonzero(~settled).tolist():
                windows[index] = waiting[int(rows[index])].windows(np.zeros(1, np.intp))[0]
        ages = (last + 1) * self.spec.step if self.spec.axis != TIME else np.full(len(rows), np.nan)
        return rows, window_features(windows, ages, self.spec.derived)

    def _alone(self, added: SortedReadings) -> Flags:
        """Returns for each reading whether its machine has to be handled alone."""
        if not self._locator.references:
            return np.zeros(len(added.rows), np.bool_)
        odd = self._waits[added.rows] | (self._misaligned[added.rows] >= _MISALIGNED)
        if added.times.max() - added.times.min() >= 1 << _KEY_BITS:
            odd[:] = True
            return odd
        needs = (added.columns < len(self.spec.sensors)) & ~np.isnan(added.values)
        for column in self._locator.references:
            found, _ = self._at_same_time(added, column)
            odd |= needs & ~found
        if self._locator.axis is not None:
            odd |= self._falls(added, self._locator.axis)
        machines = np.cumsum(np.append(False, added.rows[1:] != added.rows[:-1]))
        alone: Flags = np.bincount(machines, weights=odd)[machines] > 0
        return alone

    def _falls(self, added: SortedReadings, axis: int) -> Flags:
        """Returns which readings of the life counter are less than the one before."""
        falls = np.zeros(len(added.rows), np.bool_)
        at = np.flatnonzero((added.columns == axis) & ~np.isnan(added.values))
        if len(at):
            rows, life = added.rows[at], added.values[at]
            before = np.append(np.nan, life[:-1])
            begins = np.append(True, rows[1:] != rows[:-1])
            before[begins] = self._latest.number[rows[begins], axis]
            falls[at] = life < before
        return falls

    def _at_same_time(self, added: SortedReadings, column: int) -> tuple[Flags, Values]:
        """Returns for each reading whether a number of `column` was read at the same time, and that number."""
        found = self._latest.number_time[added.rows, column] == added.times
        values = np.where(found, self._latest.number[added.rows, column], np.nan)
        at = np.flatnonzero((added.columns == column) & ~np.isnan(added.values))
        if len(at):
            keys = (added.rows << _KEY_BITS) | (added.times - added.times.min())
            position = np.minimum(np.searchsorted(keys[at], keys), len(at) - 1)
            same = keys[at][position] == keys
            values = np.where(same, added.values[at][position], values)
            found |= same
        return found, values

    def _add_together(self, added: SortedReadings) -> None:
        """Adds readings whose references were all read at the same time."""
        if not len(added.rows):
            return
        if self._unsettled:  # without pending readings, and not needed any more
            for row in np.unique(added.rows).tolist():
                self._unsettled.pop(row, None)
        axis = self._locator.axis
        ages = hours_of_time(added.times) if axis is None else self._at_same_time(added, axis)[1]
        regimes = None
        if self.spec.regimes is not None:
            settings = np.column_stack([self._at_same_time(added, column)[1] for column in self._locator.settings])
            regimes = self.spec.regimes.nearest(settings)
        self._add_located(self._windows, added, *self._locator.steps(ages), regimes)

    def _from_latest(self, row: int) -> UnsettledReadings:
        """Returns the references of a machine that was handled together with others."""
        readings = UnsettledReadings()
        for column in self._locator.references:
            at, number = self._latest.number_time[row, column], self._latest.number[row, column]
            if at != NEVER:
                readings.references[column] = np.array([at]), np.array([number])
            reached = at if column == self._locator.axis else self._latest.time[row, column]
            if reached != NEVER:
                readings.reached[column] = int(reached)
        return readings

    def _settle(self, row: int, readings: UnsettledReadings) -> bool:
        """Adds the readings that are settled to the window. Returns False if it has to be filled again."""
        began = self._locator.begin_of_run(readings)
        if began is not None:
            self._windows.clear(row)
            self._began[row] = began
        until = self._locator.settled_until(readings)
        settled, readings.pending = split_at(readings.pending, until)
        added = _joined(row, settled, int(self._began[row]))
        if len(added.rows):
            if not self._locator.reaches_back(readings, int(added.times.min())):
                return False
            self._add_located(self._windows, added, *self._locator.locate(readings, added.times))
        self._locator.trim(readings, until)
        self._unsettled[row] = readings
        if not self._locator.references:
            del self._unsettled[row]
        self._waits[row] = bool(readings.pending)
        return True

    def _provisional(self, row: int) -> StepWindows:
        """Returns the window of a machine with its pending readings, by what is known at present."""
        copy = self._windows.copy_row(row)
        readings = self._unsettled[row]
        added = _joined(0, readings.pending, int(self._began[row]))
        if len(added.rows):
            self._add_located(copy, added, *self._locator.locate(readings, added.times))
        return copy

    def _add_located(
        self, windows: StepWindows, added: SortedReadings, steps: Integers, valid: Flags, regimes: Indices | None
    ) -> None:
        values = added.values
        wanted = (added.columns < len(self.spec.sensors)) & ~np.isnan(values)
        metrics.track_ignored("life_counter", int((wanted & ~valid).sum()))
        if self.spec.regimes is not None and regimes is not None:
            values = values.copy()
            for column, sensor in enumerate(self.spec.sensors):
                at = added.columns == column
                values[at] = self.spec.regimes.relative(sensor, values[at], regimes[at])
        wanted &= valid & ~np.isnan(values)
        windows.add(added.rows[wanted], added.columns[wanted], steps[wanted], values[wanted])


def _joined(row: int, columns: Mapping[int, Column], began: int) -> SortedReadings:
    """Returns the readings of a machine from the beginning of its run on."""
    times: list[Timestamps] = []
    values: list[Values] = []
    indices: list[Rows] = []
    for column, (each, measured) in sorted(columns.items()):
        start = int(np.searchsorted(each, began))
        times.append(each[start:])
        values.append(measured[start:])
        indices.append(np.full(len(each) - start, column, np.intp))
    if not times:
        times, values, indices = [np.empty(0, np.int64)], [np.empty(0)], [np.empty(0, np.intp)]
    joined = np.concatenate(times)
    return SortedReadings(np.full(len(joined), row, np.intp), np.concatenate(indices), joined, np.concatenate(values))
