"""Counts the readings of a table that replace one of the same sensor and time, also over blocks of the table."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from aurum.readings.batch import Series, Timestamps

_MAX_TIMES = 2_000_000  # that are remembered, with 8 bytes each
_MAX_SERIES = 100_000
_MAX_PARTS = 16  # arrays of one series


@dataclass(slots=True)
class _SeenTimes:
    """The times of one series.

    Attributes:
        parts: The times, in sorted arrays.
        latest_us: The latest of them.
        forgotten_us: The latest time that is no longer remembered.
    """

    parts: list[Timestamps] = field(default_factory=list)
    latest_us: int = -(1 << 62)
    forgotten_us: int = -(1 << 62)


class RepeatedTimes:
    """Counts over the blocks of one table.

    A table in the order of time needs no more than the latest time of each series. For others, two million times are
    remembered. The count is then exact up to that many, and a lower limit beyond.

    Attributes:
        count: The number of readings that replace an earlier one.
        example: One of them.
        exact: Whether the count is exact.
    """

    def __init__(self, max_times: int = _MAX_TIMES) -> None:
        self.count = 0
        self.example = ""
        self.exact = True
        self._max_times = max_times
        self._remembered = 0
        self._series: dict[tuple[str, str], _SeenTimes] = {}

    def record(self, block: Iterable[Series]) -> bool:
        """Counts the readings of a block. Returns whether any may replace a reading of an earlier block."""
        across = [self._record_series(each) for each in block]
        if self._remembered > self._max_times:
            self._forget()
        return any(across)

    def _record_series(self, series: Series) -> bool:
        times = series.timestamps
        if not (np.diff(times) > 0).all():  # unlike in most tables
            times, counts = np.unique(times, return_counts=True)
            if repeated := len(series.timestamps) - len(times):
                self._count(series, repeated, int(times[counts > 1][-1]))
        seen = self._series.get((series.machine_id, series.sensor))
        if seen is None:
            if len(self._series) >= _MAX_SERIES:
                self.exact = False
                return True
            seen = self._series[series.machine_id, series.sensor] = _SeenTimes()
        may_repeat = int(times[0]) <= seen.latest_us
        if may_repeat:
            known = np.zeros(len(times), bool)
            for part in seen.parts:
                known |= np.isin(times, part, assume_unique=True)
            if known.any():
                self._count(series, int(np.count_nonzero(known)), int(times[known][-1]))
            if int(times[0]) <= seen.forgotten_us:
                self.exact = False
            times = times[~known]
        self._remember(seen, times)
        return may_repeat

    def _remember(self, seen: _SeenTimes, times: Timestamps) -> None:
        if not len(times):
            return
        seen.parts.append(times)
        seen.latest_us = max(seen.latest_us, int(times[-1]))
        self._remembered += len(times)
        if len(seen.parts) > _MAX_PARTS:
            seen.parts = [np.sort(np.concatenate(seen.parts), kind="stable")]

    def _forget(self) -> None:
        """Forgets all times but the latest of each series."""
        self._remembered = 0
        for seen in self._series.values():
            seen.parts.clear()
            seen.forgotten_us = seen.latest_us

    def _count(self, series: Series, repeated: int, last_us: int) -> None:
        self.count += repeated
        at = datetime.fromtimestamp(last_us / 1e6, UTC)
        self.example = f"{series.machine_id} {series.sensor} at {at:%Y-%m-%dT%H:%M:%SZ}"
