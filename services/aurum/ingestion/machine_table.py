"""All machines of a plant, in arrays by number of the machine, and the last readings of their series."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator

import numpy as np

from aurum.ingestion.latest_readings import LatestReadings, Places, extended
from aurum.ingestion.series_index import SeriesIndex
from aurum.ingestion.store import MachineRecord
from aurum.readings.batch import Numbers, Timestamps

_UNSEEN = np.iinfo(np.int64).max  # in place of the time of the first reading of a machine that has none
_FIRST_SIZE = 256


class MachineTable:
    """Machines, numbered from 0 in the order in which they became known, registered or not.

    Attributes:
        index: The numbers of the series.
        latest: The last readings of the series.
        records: The registration of each machine.
        sensors: The sensors with readings of each machine, sorted.
        series: The numbers of their series, in the same order.
        last_seen: The time of the last reading of each machine; 0 without readings.
        versions: The version of the plant at the last change of each machine.
    """

    def __init__(self, index: SeriesIndex) -> None:
        self.index = index
        self.latest = LatestReadings()
        self.records: list[MachineRecord] = []
        self.sensors: list[list[str]] = []
        self.series: list[array[int]] = []
        self.last_seen: Timestamps = np.zeros(_FIRST_SIZE, np.int64)
        self.versions: Timestamps = np.zeros(_FIRST_SIZE, np.int64)
        self._first_seen: Timestamps = np.full(_FIRST_SIZE, _UNSEEN, np.int64)
        self._machine_of: Numbers = np.zeros(_FIRST_SIZE, np.int32)  # by series
        self._numbers: dict[str, int] = {}
        self._ids: list[str] = []
        self._is_sorted = True

    def __len__(self) -> int:
        """Returns the number of machines."""
        return len(self.records)

    def number_of(self, machine_id: str) -> int | None:
        """Returns the number of a machine, or None if it is unknown."""
        return self._numbers.get(machine_id)

    def add(self, record: MachineRecord) -> int:
        """Adds a machine. Returns its number."""
        number = self._numbers[record.machine_id] = len(self.records)
        self.records.append(record)
        self.sensors.append([])
        self.series.append(array("i"))
        self._is_sorted = self._is_sorted and (not self._ids or self._ids[-1] < record.machine_id)
        self._ids.append(record.machine_id)
        if number >= len(self.versions):
            self.last_seen = extended(self.last_seen, number + 1, 0)
            self.versions = extended(self.versions, number + 1, 0)
            self._first_seen = extended(self._first_seen, number + 1, _UNSEEN)
        return number

    def numbers_after(self, machine_id: str) -> Iterator[int]:
        """Yields the numbers of the machines whose ids follow one, in the order of their ids."""
        if not self._is_sorted:
            self._ids.sort()
            self._is_sorted = True
        for place in range(bisect_right(self._ids, machine_id), len(self._ids)):
            yield self._numbers[self._ids[place]]

    def make_room(self) -> None:
        """Extends the arrays for all series of the index."""
        count = len(self.index)
        self.latest.make_room(count)
        if count > len(self._machine_of):
            self._machine_of = extended(self._machine_of, count, 0)

    def add_series(self, machine: int, sensor: str, series: int) -> None:
        """Adds a series to those of a machine, before its first reading."""
        place = bisect_left(self.sensors[machine], sensor)
        self.sensors[machine].insert(place, sensor)
        self.series[machine].insert(place, series)
        self._machine_of[series] = machine

    def machines_of(self, series: Places) -> Places:
        """Returns the number of the machine of each series."""
        return self._machine_of[series].astype(np.intp)

    def include_times(self, machines: Places, first: Timestamps, last: Timestamps) -> None:
        """Extends the spans from the first to the last reading of machines, of which some may be the same."""
        if (first < self._first_seen[machines]).any():  # seldom
            np.minimum.at(self._first_seen, machines, first)
        np.maximum.at(self.last_seen, machines, last)

    def include_first(self, machine: int, first_us: int) -> None:
        """Moves the time of the first reading of a machine back to `first_us`, if that is earlier."""
        self._first_seen[machine] = min(self._first_seen[machine], first_us)

    def first_seen(self, machine: int) -> int:
        """Returns the time of the first reading of a machine; 0 without readings."""
        first = self._first_seen.item(machine)
        return 0 if first == _UNSEEN else first
