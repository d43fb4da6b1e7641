"""The last reading of every series, in arrays by the number of the series."""

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from aurum.readings.batch import Batch, Timestamps, Values
from aurum.storage.ranks import Rank

Places = npt.NDArray[np.intp]  # numbers of series or machines, as they index arrays
Flags = npt.NDArray[np.bool_]

NEVER = np.iinfo(np.int64).min  # in place of the time of the last reading of a series that has none
Number = TypeVar("Number", bound=np.number[Any])

_FIRST_SIZE = 1024
_FEW_SOURCES = 1024  # below which unused sources are not looked for


class LatestReadings:
    """The last readings of series. Of readings at the same time, the one with the highest rank counts.

    A rank is held as the number of its source in a table, and a sequence.

    Attributes:
        times: The time of the last reading by number of the series; NEVER without readings.
        values: Its value.
    """

    def __init__(self) -> None:
        self.times: Timestamps = np.full(_FIRST_SIZE, NEVER, np.int64)
        self.values: Values = np.zeros(_FIRST_SIZE, np.float64)
        self._sources = np.zeros(_FIRST_SIZE, np.int32)
        self._sequences = np.zeros(_FIRST_SIZE, np.int64)
        self._source_keys: list[Rank] = [()]  # ranks without their sequence; empty for unknown ranks
        self._source_numbers: dict[Rank, int] = {(): 0}
        self._most_sources = _FEW_SOURCES

    def make_room(self, series: int) -> None:
        """Extends the arrays for numbers below `series`."""
        if series > len(self.times):
            self.times = extended(self.times, series, NEVER)
            self.values = extended(self.values, series, 0.0)
            self._sources = extended(self._sources, series, 0)
            self._sequences = extended(self._sequences, series, 0)

    def have_readings(self, series: npt.NDArray[np.integer[Any]]) -> Flags:
        """Returns which of the series have readings. Negative numbers have none."""
        found: Flags = (self.times[series] != NEVER) & (series >= 0)
        return found

    def has_reading(self, series: int) -> bool:
        """Whether a series has a reading."""
        return series < len(self.times) and self.times.item(series) != NEVER

    def replace(self, series: Places, times: Timestamps, values: Values, rank: Rank) -> None:
        """Takes over readings of one batch that are later than the last ones, or as late and not of a lower rank.

        Args:
            series: The numbers of the series, each once.
            times: The time of the last reading of each in the batch.
            values: Their values.
            rank: The rank of the batch.
        """
        self._drop_unused_sources()
        source, sequence = self._split(rank)
        last = self.times[series]
        later = times > last
        if not later.all():
            tied = np.flatnonzero(times == last)
            if len(tied):
                own = np.array([source], np.int32), np.array([sequence], np.int64)
                later[tied] = ~self._outranks(self._ranks_of(series[tied]), own)
            series, times, values = series[later], times[later], values[later]
        self.times[series] = times
        self.values[series] = values
        self._sources[series] = source
        self._sequences[series] = sequence

    def merge(self, series: Places, times: Timestamps, values: Values, ranks: Sequence[Rank]) -> None:
        """Takes over readings that are later than the last ones, or as late and of a higher rank.

        Args:
            series: The numbers of the series, each once.
            times: The time of the reading of each.
            values: Their values.
            ranks: Their ranks; empty ones are unknown.
        """
        self._drop_unused_sources()
        split = [self._split(rank) for rank in ranks]
        sources = np.array([source for source, _ in split], np.int32)
        sequences = np.array([sequence for _, sequence in split], np.int64)
        last = self.times[series]
        later = times > last
        tied = np.flatnonzero(times == last)
        if len(tied):
            later[tied] = self._outranks((sources[tied], sequences[tied]), self._ranks_of(series[tied]))
        series = series[later]
        self.times[series] = times[later]
        self.values[series] = values[later]
        self._sources[series] = sources[later]
        self._sequences[series] = sequences[later]

    @property
    def sources(self) -> int:
        """How many sources are held, of which some may be unused."""
        return len(self._source_keys)

    def _ranks_of(self, series: Places) -> tuple[npt.NDArray[np.int32], Timestamps]:
        return self._sources[series], self._sequences[series]

    def _outranks(
        self, ranks: tuple[npt.NDArray[np.int32], Timestamps], others: tuple[npt.NDArray[np.int32], Timestamps]
    ) -> Flags:
        """Returns where a rank is higher than the other one."""
        (sources, sequences), (other_sources, other_sequences) = ranks, others
        if (sources == other_sources).all():
            newer: Flags = sequences > other_sequences
            return newer
        used = np.unique(np.concatenate((sources, other_sources)))
        ordered = sorted(range(len(used)), key=lambda place: self._source_keys[used[place]])
        levels = np.empty(len(used), np.intp)  # the order of the sources
        levels[ordered] = np.arange(len(used))
        level, other = levels[np.searchsorted(used, sources)], levels[np.searchsorted(used, other_sources)]
        higher: Flags = (level > other) | ((level == other) & (sequences > other_sequences))
        return higher

    def _split(self, rank: Rank) -> tuple[int, int]:
        """Returns the number of the source of a rank, and the sequence."""
        key = rank[:-1]
        source = self._source_numbers.get(key)
        if source is None:
            source = self._source_numbers[key] = len(self._source_keys)
            self._source_keys.append(key)
        return source, rank[-1] if rank else 0

    def _drop_unused_sources(self) -> None:
        """Numbers the sources anew, without those of which no last reading is left, if they have become many."""
        if len(self._source_keys) <= self._most_sources:
            return
        used, sources = np.unique(self._sources, return_inverse=True)
        self._sources = sources.astype(np.int32)
        self._source_keys = [self._source_keys[source] for source in used.tolist()]
        self._source_numbers = {key: source for source, key in enumerate(self._source_keys)}
        self._most_sources = max(_FEW_SOURCES, 2 * len(self._source_keys))


def last_of_each(batch: Batch) -> tuple[Timestamps, Values, Timestamps]:
    """Returns time and value of the last reading of each series of a batch, and the time of the first.

    Of readings at the same time, the one that comes last in the batch counts.
    """
    if batch.readings == len(batch.lengths):
        return batch.timestamps, batch.values, batch.timestamps
    ends = np.cumsum(batch.lengths, dtype=np.intp)
    starts = ends - batch.lengths
    if batch.increasing.all():
        return batch.timestamps[ends - 1], batch.values[ends - 1], batch.timestamps[starts]
    times: Timestamps = np.maximum.reduceat(batch.timestamps, starts)
    is_last = batch.timestamps == np.repeat(times, batch.lengths)
    places = np.maximum.reduceat(np.where(is_last, np.arange(batch.readings), -1), starts)
    return times, batch.values[places], np.minimum.reduceat(batch.timestamps, starts)


def extended(array: npt.NDArray[Number], least: int, fill: float) -> npt.NDArray[Number]:
    """Returns a copy of an array with at least `least` items; the new ones are `fill`."""
    larger = np.full(max(least, 2 * len(array)), fill, array.dtype)
    larger[: len(array)] = array
    return larger
