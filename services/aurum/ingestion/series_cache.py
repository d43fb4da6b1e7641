"""The latest readings of each series in memory, so that queries about the present need no disk access."""

from collections import OrderedDict

import numpy as np

from aurum.ingestion import metrics
from aurum.ingestion.latest_readings import Places, extended
from aurum.readings.batch import Batch, Timestamps, Values

_FEW = 16  # readings; with fewer, their rate is not estimated
_MARGIN = 1.1
_READING_BYTES = 16
_OVERHEAD = 500  # bytes of a tail besides its readings
_GROWTH = 16  # factor by which a tail may grow beyond its first capacity


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

    def append_reading(self, at: int, value: float) -> None:
        """Adds one reading; see `append_readings`."""
        end = self._end
        if end and end < len(self._timestamps) and at > self._timestamps[end - 1]:
            self._timestamps[end] = at
            self._values[end] = value
            self._end = end + 1
        else:
            self.append_readings(np.array([at], np.int64), np.array([value], np.float64), increasing=True)

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


class SeriesCache:
    """The tails of the series that were queried, by number of the series. Their total size is limited."""

    def __init__(self, readings: int, max_bytes: int) -> None:
        """Creates an empty cache.

        Args:
            readings: The first capacity of a tail.
            max_bytes: The limit on the size of all tails.
        """
        self._readings = readings
        self._max_bytes = max_bytes
        self._held_bytes = 0  # greatest size of all present tails
        self._tails: OrderedDict[int, CachedSeries] = OrderedDict()  # the most recently used last
        self._has_tail = np.zeros(1, np.int8)  # by number of the series

    def tail(self, series: int, newest_us: int) -> CachedSeries:
        """Returns the tail of a series. A new one starts after `newest_us`, the time of the last reading."""
        tail = self._tails.get(series)
        if tail is None:
            tail = self._tails[series] = CachedSeries(self._readings, newest_us + 1)
            if series >= len(self._has_tail):
                self._has_tail = extended(self._has_tail, series + 1, 0)
            self._has_tail[series] = 1
            self._held_bytes += _max_bytes(tail.capacity)
            while self._held_bytes > self._max_bytes and len(self._tails) > 1:
                dropped, dropped_tail = self._tails.popitem(last=False)
                self._has_tail[dropped] = 0
                self._held_bytes -= _max_bytes(dropped_tail.capacity)
            metrics.ingestion_tails.set(len(self._tails))
        elif 4 * tail.asked > 3 * tail.capacity:
            self._grow(tail, 2 * tail.capacity)
        self._tails.move_to_end(series)
        return tail

    def present(self, series: int) -> CachedSeries | None:
        """Returns the tail of a series if there is one."""
        return self._tails.get(series)

    def extend(self, tail: CachedSeries, start_us: int) -> bool:
        """Enlarges a tail for all readings from `start_us` on, as estimated by their rate.

        Returns whether there is room.
        """
        wanted = tail.estimate_count(start_us)
        return wanted > 0 and self._grow(tail, wanted)

    def append_batch(self, batch: Batch, series: Places) -> None:
        """Adds the readings of a batch to the tails. series: The numbers of its series."""
        if not self._tails:
            return
        if int(series.max()) >= len(self._has_tail):
            self._has_tail = extended(self._has_tail, int(series.max()) + 1, 0)
        places = np.flatnonzero(self._has_tail[series])
        if not len(places):
            return
        tails = [self._tails[number] for number in series[places].tolist()]
        if batch.readings == len(series):
            for tail, at, value in zip(
                tails, batch.timestamps[places].tolist(), batch.values[places].tolist(), strict=True
            ):
                tail.append_reading(at, value)
            return
        ends = np.cumsum(batch.lengths)[places].tolist()
        lengths, increasing = batch.lengths[places].tolist(), batch.increasing[places].tolist()
        for tail, end, length, sorted_ in zip(tails, ends, lengths, increasing, strict=True):
            readings = slice(end - length, end)
            tail.append_readings(batch.timestamps[readings], batch.values[readings], increasing=sorted_)

    def _grow(self, tail: CachedSeries, wanted: int) -> bool:
        """Enlarges a tail to hold `wanted` readings. Returns False if that exceeds the limits."""
        capacity = tail.capacity
        while capacity < wanted:
            capacity *= 2
        more = _max_bytes(capacity) - _max_bytes(tail.capacity)
        if capacity > _GROWTH * self._readings or self._held_bytes + more > self._max_bytes:
            return False
        self._held_bytes += more
        tail.capacity = capacity
        return True


def _max_bytes(capacity: int) -> int:
    """Returns the memory that a tail of this capacity takes at most."""
    return 2 * capacity * _READING_BYTES + _OVERHEAD
