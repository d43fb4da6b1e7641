"""Readings of many series in arrays, sorted by machine, sensor and time."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aurum.prediction.fleet.step_windows import Integers, Rows
from aurum.readings.batch import Timestamps, Values


@dataclass(frozen=True, slots=True)
class SortedReadings:
    """Readings, each with the row of its machine and the column of its sensor; sorted by both, then by time."""

    rows: Rows
    columns: Rows
    times: Timestamps
    values: Values

    def part(self, index: "slice | npt.NDArray[np.intp] | npt.NDArray[np.bool_]") -> "SortedReadings":
        """Returns the readings that an index of arrays selects."""
        return SortedReadings(self.rows[index], self.columns[index], self.times[index], self.values[index])

    def spans(self) -> Iterator[tuple[int, int]]:
        """Yields start and end of the readings of each machine."""
        if len(self.rows):
            begins = np.flatnonzero(np.append(True, self.rows[1:] != self.rows[:-1])).tolist()
            yield from zip(begins, [*begins[1:], len(self.rows)], strict=True)

    def column_spans(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yields start and end of the readings of each sensor within those of one machine."""
        columns = self.columns[start:end]
        begins = (start + np.flatnonzero(np.append(True, columns[1:] != columns[:-1]))).tolist()
        yield from zip(begins, [*begins[1:], end], strict=True)


@dataclass(slots=True)
class LatestReadings:
    """The latest reading of each series, by row and column.

    Attributes:
        time: Its time, also if its value is NaN; NEVER without a reading.
        number_time: The time of the latest reading that is a number.
        number: Its value.
    """

    time: Integers
    number_time: Integers
    number: Values

    def note(self, added: SortedReadings) -> None:
        """Notes readings that are later than the former ones."""
        # Assignments to the same place take effect in their order, which is that of time
        self.time[added.rows, added.columns] = added.times
        present = ~np.isnan(added.values)
        at = added.rows[present], added.columns[present]
        self.number_time[at] = added.times[present]
        self.number[at] = added.values[present]


def sort_readings(readings: SortedReadings, latest: LatestReadings) -> tuple[SortedReadings, set[int]]:
    """Sorts readings that arrived in any order, and removes those that are known already.

    Args:
        readings: The readings in the order in which they arrived.
        latest: The latest reading of each series before.

    Returns:
        The new readings, and the rows of machines whose readings do not only follow the former ones. The readings of
        these machines are left out.
    """
    added = readings.part(np.lexsort((readings.times, readings.columns, readings.rows)))
    if not len(added.rows):
        return added, set()
    last = latest.time[added.rows, added.columns]
    known = np.where(
        latest.number_time[added.rows, added.columns] == last, latest.number[added.rows, added.columns], np.nan
    )
    repeated = (added.times == last) & _same(added.values, known)
    late = (added.times <= last) & ~repeated
    # If two readings of a series have the same time, the later one wins
    again = np.zeros(len(added.rows), np.bool_)
    again[:-1] = (
        (added.rows[1:] == added.rows[:-1])
        & (added.columns[1:] == added.columns[:-1])
        & (added.times[1:] == added.times[:-1])
    )
    differs = again.copy()
    differs[:-1] &= ~_same(added.values[1:], added.values[:-1])
    rows = set(np.unique(added.rows[late | differs]).tolist())
    keep = ~(repeated | again)
    if rows:
        keep &= ~np.isin(added.rows, np.fromiter(rows, np.int64, len(rows)))
    return (added if keep.all() else added.part(keep)), rows


def _same(first: Values, second: Values) -> npt.NDArray[np.bool_]:
    same: npt.NDArray[np.bool_] = (first == second) | (np.isnan(first) & np.isnan(second))
    return same
