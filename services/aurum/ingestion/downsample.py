"""Reduces a series to a number of points without losing peaks: mean, min, max and count of equal intervals."""

import numpy as np

from aurum.ingestion.store import Points
from aurum.readings.batch import Timestamps, Values


def merge_parts(parts: list[tuple[Timestamps, Values]]) -> tuple[Timestamps, Values]:
    """Merges parts that may overlap into one sorted series. Of readings at the same time, the later part's is kept."""
    if not parts:
        return np.empty(0, np.int64), np.empty(0, np.float64)
    if len(parts) == 1:
        timestamps, values = parts[0]
    else:
        timestamps = np.concatenate([part[0] for part in parts])
        values = np.concatenate([part[1] for part in parts])
    if (timestamps[1:] > timestamps[:-1]).all():
        return timestamps, values
    order = np.argsort(timestamps, kind="stable")
    timestamps, values = timestamps[order], values[order]
    last_of_time = np.append(np.diff(timestamps) != 0, True)
    return timestamps[last_of_time], values[last_of_time]


class Reducer:
    """Reduces a series in [start_us, end_us) to `points` intervals of equal width.

    Readings are added in sorted chunks. NaN values are ignored.
    """

    def __init__(self, start_us: int, end_us: int, points: int) -> None:
        self._start = start_us
        self._width = max(1, -(-(end_us - start_us) // points))  # width of an interval in µs, rounded up
        self._bounds = start_us + np.arange(points, dtype=np.int64) * self._width  # starts of the intervals
        self._sums = np.zeros(points)
        self._counts = np.zeros(points, np.int64)
        self._minima = np.full(points, np.inf)
        self._maxima = np.full(points, -np.inf)

    def add_readings(self, timestamps: Timestamps, values: Values) -> None:
        """Adds readings, which are later than those added before."""
        missing = np.isnan(values)
        if missing.any():
            timestamps, values = timestamps[~missing], values[~missing]
        if not len(values):
            return
        edges = np.searchsorted(timestamps, self._bounds)
        counts = np.diff(edges, append=len(values))
        occupied = np.flatnonzero(counts)
        firsts = edges[occupied]
        self._counts += counts
        self._sums[occupied] += np.add.reduceat(values, firsts)
        self._minima[occupied] = np.minimum(self._minima[occupied], np.minimum.reduceat(values, firsts))
        self._maxima[occupied] = np.maximum(self._maxima[occupied], np.maximum.reduceat(values, firsts))

    def result(self) -> Points:
        """Returns mean, minimum, maximum and count of each interval that has readings."""
        occupied = np.flatnonzero(self._counts)
        counts = self._counts[occupied]
        return Points(
            timestamps=self._start + occupied.astype(np.int64) * self._width,
            values=self._sums[occupied] / counts,
            minima=self._minima[occupied],
            maxima=self._maxima[occupied],
            counts=counts,
        )


def reduce_points(timestamps: Timestamps, values: Values, start_us: int, end_us: int, points: int) -> Points:
    """Returns the series unchanged if it has at most `points` readings or `points` is 0, else reduces it."""
    if not points or len(timestamps) <= points:
        return Points(timestamps, values)
    reducer = Reducer(start_us, end_us, points)
    reducer.add_readings(timestamps, values)
    return reducer.result()
