"""Readings of many series in columns: sorted by series and time, with one reading for each time of a series."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from aurum.readings.batch import Numbers, Timestamps, Values
from aurum.runtime.time_units import DAY_US
from aurum.storage.ranks import Ranks

Positions = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PackedReadings:
    """Readings of many series.

    Attributes:
        numbers: The number of each series, increasing.
        lengths: The number of readings of each series, at least one.
        timestamps: The times in µs of all series, one series after the other. They increase within a series.
        values: As many values.
        ranks: As many ranks.
    """

    numbers: Numbers
    lengths: npt.NDArray[np.int64]
    timestamps: Timestamps
    values: Values
    ranks: Ranks

    @property
    def ends(self) -> npt.NDArray[np.int64]:
        """For each series, the position after its last reading."""
        return np.cumsum(self.lengths)

    @property
    def last_runs(self) -> npt.NDArray[np.intp]:
        """For each series, the run of `ranks` that its last reading is in."""
        if len(self.ranks.lengths) == 1:
            return np.zeros(len(self.lengths), np.intp)
        return np.searchsorted(np.cumsum(self.ranks.lengths), self.ends - 1, side="right")

    def of_series(self, chosen: Mask) -> "PackedReadings":
        """Returns the readings of some of the series, given by a mask."""
        if chosen.all():
            return self
        readings = np.repeat(chosen, self.lengths)
        return PackedReadings(
            self.numbers[chosen],
            self.lengths[chosen],
            self.timestamps[readings],
            self.values[readings],
            self.ranks.selected(readings),
        )

    def by_day(self) -> Iterator[tuple[int, "PackedReadings"]]:
        """Yields each UTC day, as days since the epoch, with its readings."""
        first, last = int(self.timestamps.min()) // DAY_US, int(self.timestamps.max()) // DAY_US
        if first == last:
            yield first, self
            return
        days = self.timestamps // DAY_US
        order = np.argsort(days, kind="stable")
        numbers = np.repeat(self.numbers, self.lengths)
        cuts = np.flatnonzero(np.diff(days[order])) + 1
        for readings in np.split(order, cuts):
            found, lengths = count_by_series(numbers[readings])
            yield (
                int(days[readings[0]]),
                PackedReadings(
                    found,
                    lengths,
                    self.timestamps[readings],
                    self.values[readings],
                    self.ranks.selected(readings),
                ),
            )


def count_by_series(numbers: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Returns the different numbers of a sorted array, and how often each occurs."""
    starts = np.flatnonzero(np.append(True, numbers[1:] != numbers[:-1]))
    return numbers[starts], np.diff(np.append(starts, len(numbers)))


def sort_in_time(
    order: Positions,
    numbers: npt.NDArray[Any],
    timestamps: Timestamps,
    levels: Callable[[Positions], npt.NDArray[Any]],
) -> tuple[Positions, Timestamps]:
    """Sorts readings that are grouped by series, and drops those that others replace.

    Of the readings of a series at the same time, the one with the highest level is kept; among equal levels, the last.

    Args:
        order: The positions of the readings in their columns, grouped by series; within a series as they arrived.
        numbers: The number of the series of each reading, in this order.
        timestamps: The time of each reading, in this order.
        levels: Returns the levels of the readings at some positions. Called only if they are not in time order.

    Returns:
        The positions of the remaining readings and their times.
    """
    follows = numbers[1:] == numbers[:-1]
    unordered = follows & (timestamps[1:] <= timestamps[:-1])
    if not unordered.any():
        return order, timestamps
    # Only the series that are not in time order are sorted
    series = np.zeros(len(order), np.int32)
    np.cumsum(~follows, out=series[1:])
    affected = np.zeros(int(series[-1]) + 1, np.bool_)
    affected[series[1:][unordered]] = True
    chosen = affected[series]
    places, series, times = order[chosen], series[chosen], timestamps[chosen]
    again = np.lexsort((levels(places), times, series))
    series, times = series[again], times[again]
    last_of_time = np.append((series[1:] != series[:-1]) | (times[1:] != times[:-1]), True)
    order, timestamps = order.copy(), timestamps.copy()
    order[chosen], timestamps[chosen] = places[again], times
    if last_of_time.all():
        return order, timestamps
    kept = np.ones(len(order), np.bool_)
    kept[chosen] = last_of_time
    return order[kept], timestamps[kept]


def concatenate_ranks(parts: Sequence[Ranks]) -> Ranks:
    """Joins ranks of readings that follow each other."""
    if len(parts) == 1:
        return parts[0]
    sources = sorted({source for ranks in parts for source in ranks.sources})
    place_of = {source: place for place, source in enumerate(sources)}
    places = np.concatenate([np.array([place_of[each] for each in ranks.sources])[ranks.places] for ranks in parts])
    return Ranks.from_runs(
        sources,
        places,
        np.concatenate([ranks.sequences for ranks in parts]),
        np.concatenate([ranks.lengths for ranks in parts]),
    )
