"""The latest readings of each series in memory, so that queries about the present need no disk access."""

import numpy as np

from aurum.readings.batch import Timestamps, Values

_FEW = 16  # readings; with fewer, their rate is not estimated
_MARGIN = 1.1


class CachedSeries:
    """The readings of one series from `complete_from` on, without gaps.

    It holds at least the last `capacity` readings once that many have arrived.
    """

    __slots__ = ("_end", "_timestamps", "_values", "asked", "capacity", "complete_from", "late")

    def __init__(self, capacity: int, complete_from: int) -> None:
        self.capacity = capacity  # may grow
        self.asked = 0  # the most readings that one range query has found here
        self._timestamps = np.empty(min(16, 2 * capacity), np.int64)
        self._values = np.empty(min(16, 2 * capacity), np.float64)
        self._end = 0
        self.complete_from = complete_from
        self.late = 0  # counts the readings that arrived too late for the tail

    def append_readings(self, timestamps: Timestamps, values: Values, *, increasing: bool = False) -> None:
        """Adds readings in any order.

        Late and repeated readings are left to the store. The tail then begins after them, since it is no longer
        complete before.
        """
        if not increasing and len(timestamps) > 1 and not (np.diff(timestamps) > 0).all():
            order = np.argsort(timestamps, kind="stable")
            timestamps, values = timestamps[order], values[order]
            last_of_time = np.append(np.diff(timestamps) != 0, True)
            timestamps, values = timestamps[last_of_time], values[last_of_time]
        newest = self._timestamps[self._end - 1] if self._end else self.complete_from - 1
        late = 0 if timestamps[0] > newest else int(np.searchsorted(timestamps, newest, side="right"))
        self.late += late
        if late and timestamps[late - 1] >= self.complete_from:
            self._drop_through(int(timestamps[late - 1]))
        timestamps, values = timestamps[late:], values[late:]
        if len(timestamps) > self.capacity:
            self._end = 0
            self.complete_from = int(timestamps[-self.capacity])
            timestamps, values = timestamps[-self.capacity :], values[-self.capacity :]
        count = len(timestamps)
        if not count:
            return
        self._make_room(count)
        self._timestamps[self._end : self._end + count] = timestamps
        self._values[self._end : self._end + count] = values
        self._end += count

    def prepend_readings(self, timestamps: Timestamps, values: Values, late: int, since: int) -> None:
        """Adds all readings that the store has from `since` on.

        Args:
            timestamps: Their times, sorted.
            values: As many values.
            late: The value of `late` before the store was asked. If it has changed, nothing is added.
            since: The time from which on the readings are complete.
        """
        if late != self.late or since >= self.complete_from:
            return
        held = self._timestamps[: self._end].copy(), self._values[: self._end].copy()
        older = int(np.searchsorted(timestamps, self.complete_from))
        keep = slice(max(0, older - max(0, self.capacity - self._end)), older)
        if keep.start and keep.start == older:
            return  # no room is left
        self._end = 0
        for part_timestamps, part_values in ((timestamps[keep], values[keep]), held):
            self._make_room(len(part_timestamps))
            self._timestamps[self._end : self._end + len(part_timestamps)] = part_timestamps
            self._values[self._end : self._end + len(part_timestamps)] = part_values
            self._end += len(part_timestamps)
        self.complete_from = int(timestamps[keep.start]) if keep.start else since

    def estimate_count(self, start_us: int) -> int:
        """Estimates the number of readings from `start_us` on by the rate of those held; 0 if there are too few."""
        if self._end < _FEW:
            return 0
        first, newest = int(self._timestamps[0]), int(self._timestamps[self._end - 1])
        return int(_MARGIN * self._end * (newest - start_us) / (newest - first)) + _FEW

    def between(self, start_us: int, end_us: int) -> tuple[Timestamps, Values] | None:
        """Returns the readings in [start_us, end_us), or None if some may be only in the store."""
        if start_us < self.complete_from:
            return None
        low, high = np.searchsorted(self._timestamps[: self._end], [start_us, end_us])
        self.asked = max(self.asked, int(high - low))
        return self._timestamps[low:high].copy(), self._values[low:high].copy()

    def last_readings(self, count: int, start_us: int, end_us: int) -> tuple[Timestamps, Values] | None:
        """Returns the last `count` readings in [start_us, end_us), or None if some may be only in the store."""
        low, high = np.searchsorted(self._timestamps[: self._end], [start_us, end_us])
        if high - low < count and start_us < self.complete_from:
            return None
        low = max(low, high - count)
        return self._timestamps[low:high].copy(), self._values[low:high].copy()

    def _drop_through(self, at: int) -> None:
        keep = int(np.searchsorted(self._timestamps[: self._end], at, side="right"))
        self._shift(keep)
        self.complete_from = at + 1

    def _make_room(self, count: int) -> None:
        if self._end + count <= len(self._timestamps):
            return
        surplus = self._end + count - self.capacity
        if surplus > 0:
            surplus = min(surplus, self._end)
            self.complete_from = max(self.complete_from, int(self._timestamps[surplus - 1]) + 1)
            self._shift(surplus)
        needed = self._end + count
        if needed > len(self._timestamps):
            size = min(2 * self.capacity, max(needed, 2 * len(self._timestamps)))
            self._timestamps = np.resize(self._timestamps, size)
            self._values = np.resize(self._values, size)

    def _shift(self, count: int) -> None:
        left = self._end - count
        self._timestamps[:left] = self._timestamps[count : self._end].copy()
        self._values[:left] = self._values[count : self._end].copy()
        self._end = left
