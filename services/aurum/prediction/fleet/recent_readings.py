"""The latest readings of machines that fallback rules assess, as arrays by series."""

from collections.abc import Mapping

import numpy as np

from aurum.prediction.fleet.series_rows import LatestReadings, SortedReadings, sort_readings
from aurum.prediction.fleet.step_locator import NEVER, Integers
from aurum.readings.batch import Column, Timestamps, Values

KEPT = 256  # readings of each series, as many as a prediction by a rule reads
SERIES_BYTES = 8 * KEPT + 32


class RecentReadings:
    """The latest KEPT values of series. Each series has a row; memory is used by rows that were added only."""

    def __init__(self, capacity: int) -> None:
        """Starts without series. capacity: Greatest number of series."""
        self._capacity = capacity
        self._values = np.empty((capacity, KEPT))
        self._count: Integers = np.zeros(capacity, np.int64)
        self._latest = LatestReadings(
            np.full((capacity, 1), NEVER), np.full((capacity, 1), NEVER), np.full((capacity, 1), np.nan)
        )
        self._rows: dict[int, dict[str, int]] = {}  # machine → sensor → row
        self._machine_of: Integers = np.full(capacity, -1, np.int64)
        self._free: list[int] = []
        self._used = 0

    @property
    def series(self) -> int:
        """The number of series."""
        return self._used - len(self._free)

    def install(self, machine: int, columns: Mapping[str, Column]) -> bool:
        """Replaces all readings of a machine. Returns False if there is no room for them."""
        self.release(machine)
        if self.series + len(columns) > self._capacity:
            return False
        self._rows[machine] = {}
        for sensor, (times, values) in columns.items():
            row = self._add_row(machine, sensor)
            kept = values[-KEPT:]
            self._values[row, : len(kept)] = kept
            self._count[row] = len(kept)
            where = np.full(len(times), row), np.zeros(len(times), np.intp)
            self._latest.note(SortedReadings(*where, times, values))
        return True

    def release(self, machine: int) -> None:
        """Removes a machine."""
        for row in self._rows.pop(machine, {}).values():
            self._machine_of[row] = -1
            self._free.append(row)

    def row(self, machine: int, sensor: str) -> int:
        """Returns the row of a series of a machine that is kept, a new one if needed; -1 without room."""
        rows = self._rows.get(machine)
        if rows is None:
            return -1
        if sensor not in rows and self.series >= self._capacity:
            return -1
        return rows[sensor] if sensor in rows else self._add_row(machine, sensor)

    def add(self, rows: Integers, times: Timestamps, values: Values) -> set[int]:
        """Adds readings in the order of the stream, each of a row.

        Returns:
            The machines with readings that belong before others, which have to be installed again.
        """
        readings = SortedReadings(rows, np.zeros(len(rows), np.intp), times, values)
        added, late = sort_readings(readings, self._latest)
        if len(added.rows):
            begins = np.append(True, added.rows[1:] != added.rows[:-1])
            first = np.flatnonzero(begins)
            rank = np.arange(len(added.rows)) - first[np.cumsum(begins) - 1]
            self._values[added.rows, (self._count[added.rows] + rank) % KEPT] = added.values
            np.add.at(self._count, added.rows, 1)
            self._latest.note(added)
        return {int(self._machine_of[row]) for row in late}

    def columns(self, machine: int) -> dict[str, Column]:
        """Returns the values of each sensor of a machine, the latest last, and the time of the latest."""
        columns: dict[str, Column] = {}
        for sensor, row in self._rows.get(machine, {}).items():
            count = int(self._count[row])
            if not count:
                continue
            values = self._values[row, :count] if count <= KEPT else np.roll(self._values[row], -(count % KEPT))
            columns[sensor] = self._latest.time[row], values
        return columns

    def _add_row(self, machine: int, sensor: str) -> int:
        if self._free:
            row = self._free.pop()
        else:
            row, self._used = self._used, self._used + 1
        self._rows[machine][sensor] = row
        self._machine_of[row] = machine
        self._count[row] = 0
        self._latest.time[row] = self._latest.number_time[row] = NEVER
        self._latest.number[row] = np.nan
        return row
