"""Recent readings: durable in the log and not yet in the tables.

They are held in memory for queries and for packing, in columns: those of the readings, and those of the entries. An
entry is what a batch has of one series. Adding a batch takes a few array operations, whatever the number of series.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from aurum.ingestion.series_index import SeriesIndex
from aurum.readings.batch import Batch, Numbers, SeriesKey, Timestamps, Values
from aurum.storage.block import BLOCK_SERIES
from aurum.storage.packed_readings import PackedReadings, Positions, sort_in_time
from aurum.storage.ranks import Rank, Ranks

_SORTED_AT_ONCE = 250_000  # readings; sorting takes about 50 bytes for each
_MOST_NEW_ROWS = 262_144  # by which columns grow at a time
_CHAIN = 64  # entries of a series that are followed one by one; more are found by a search in all
_READING_BYTES, _ENTRY_BYTES, _BATCH_BYTES, _SERIES_BYTES = 16, 20, 100, 8
_NONE = -1
_Column = TypeVar("_Column", bound=npt.NDArray[Any])


@dataclass(frozen=True, slots=True)
class SeriesPart:
    """Readings of one series in consecutive batches of a source.

    `rank` is that of the last of these batches, by which readings of parts replace each other: no other batch can have
    a rank in between.
    """

    rank: Rank
    timestamps: Timestamps
    values: Values


class _Columns:
    """Columns of the same length that grow together. Those that were handed out keep their content."""

    def __init__(self, room: int, *types: npt.DTypeLike) -> None:
        self.count = 0
        self.columns = [np.empty(room, type_) for type_ in types]

    def reserve(self, count: int) -> None:
        """Makes room for so many rows more."""
        needed = self.count + count
        if needed > len(self.columns[0]):
            # Doubled while it is small; later in steps, since the old and the new columns exist at the same time
            present = len(self.columns[0])
            room = max(needed, present + min(present, _MOST_NEW_ROWS))
            for place, column in enumerate(self.columns):
                larger = np.empty(room, column.dtype)
                larger[: self.count] = column[: self.count]
                self.columns[place] = larger

    def present(self) -> list[npt.NDArray[Any]]:
        """Returns the columns with the rows that there are now."""
        return [column[: self.count] for column in self.columns]


class Memtable:
    """Batches in the order of arrival. One thread adds, any thread may read."""

    def __init__(self, series: SeriesIndex, readings: int = 0, entries: int = 0) -> None:
        """Creates an empty memtable.

        Args:
            series: Numbers the series.
            readings: The number of readings for which there is room at first.
            entries: The number of entries for which there is room at first.
        """
        self._series = series
        self._lock = threading.Lock()
        self._readings = _Columns(max(1024, readings), np.int64, np.float64)  # times, values
        # Series, first reading, batch, earlier entry of the series, number of earlier entries of the series
        self._entries = _Columns(max(1024, entries), *[np.int32] * 5)
        self._batches = _Columns(256, np.int32)  # run
        self._newest = np.empty(0, np.int32)  # by series: its newest entry
        self._counts = np.empty(0, np.int32)  # by series: how many entries it has
        self._run_ranks: list[Rank] = []  # by run: the rank of its last batch
        self._newest_runs: dict[Rank, int] = {}  # by source: its run with the highest sequence

    @property
    def readings(self) -> int:
        """The number of readings."""
        return self._readings.count

    @property
    def entries(self) -> int:
        """The number of entries."""
        return self._entries.count

    @property
    def nbytes(self) -> int:
        """The approximate memory that the batches take."""
        return (
            _READING_BYTES * self._readings.count
            + _ENTRY_BYTES * self._entries.count
            + _BATCH_BYTES * self._batches.count
            + _SERIES_BYTES * len(self._newest)
        )

    def add_batch(self, batch: Batch, rank: Rank) -> None:
        """Adds a batch that has become durable.

        Series that have no number yet get one. `rank` is the source and sequence of the batch, by which readings
        replace each other.
        """
        numbers = self._series.assign(batch.keys)
        readings, entries = len(batch.values), len(numbers)
        with self._lock:
            self._make_room(readings, entries)
            end = self._readings.count + readings
            timestamps, values = self._readings.columns
            timestamps[end - readings : end] = batch.timestamps
            values[end - readings : end] = batch.values
            if entries == 1:
                self._add_entry(int(numbers[0]), end - readings)
            else:
                self._add_entries(numbers, batch.lengths, end - readings, single=readings == entries)
            self._batches.columns[0][self._batches.count] = self._run_of(rank)
            self._readings.count = end
            self._entries.count += entries
            self._batches.count += 1

    def _add_entries(self, numbers: Numbers, lengths: Numbers, start: int, *, single: bool) -> None:
        """Adds the entries of a batch whose readings begin at `start`. `single` says whether each has one reading."""
        first = self._entries.count
        after = first + len(numbers)
        series, starts, batches, earlier, places = self._entries.columns
        series[first:after] = numbers
        if single:
            starts[first:after] = np.arange(start, start + len(numbers), dtype=np.int32)
        else:
            starts[first:after] = np.cumsum(lengths, dtype=np.int32) - lengths + start
        batches[first:after] = self._batches.count
        earlier[first:after] = self._newest[numbers]
        places[first:after] = self._counts[numbers]
        self._newest[numbers] = np.arange(first, after, dtype=np.int32)  # a batch has each series once
        self._counts[numbers] += 1

    def _add_entry(self, number: int, start: int) -> None:
        """Adds the entry of a batch of one series, as `_add_entries` does, which takes longer."""
        entry = self._entries.count
        series, starts, batches, earlier, places = self._entries.columns
        series[entry], starts[entry], batches[entry] = number, start, self._batches.count
        earlier[entry], places[entry] = self._newest[number], self._counts[number]
        self._newest[number] = entry
        self._counts[number] += 1

    def _make_room(self, readings: int, entries: int) -> None:
        self._readings.reserve(readings)
        self._entries.reserve(entries)
        self._batches.reserve(1)
        if len(self._newest) < len(self._series):
            room = max(len(self._series), len(self._newest) * 5 // 4)
            self._newest = _lengthened(self._newest, room, _NONE)
            self._counts = _lengthened(self._counts, room, 0)

    def _run_of(self, rank: Rank) -> int:
        """Returns the run of a batch: that of the preceding batch of its source, or a new one."""
        source, sequence = rank[:-1], rank[-1]
        run = self._newest_runs.get(source)
        if run is not None and self._run_ranks[run][-1] == sequence - 1:
            self._run_ranks[run] = rank
            return run
        if run is None or self._run_ranks[run][-1] < sequence:
            self._newest_runs[source] = len(self._run_ranks)
        self._run_ranks.append(rank)
        return len(self._run_ranks) - 1

    def parts(self, key: SeriesKey) -> list[SeriesPart]:
        """Returns the readings of a series, as they arrived within each part."""
        number = self._series.number_of(key)
        if number is None:
            return []
        with self._lock:
            if number >= len(self._newest) or self._newest[number] == _NONE:
                return []
            entries = self._entries_of(number)
            _, starts, batches, *_ = self._entries.present()
            timestamps, values = self._readings.present()
            runs = self._batches.columns[0][batches[entries]]
            one = bool((runs == runs[0]).all())
            ranks = {run: self._run_ranks[run] for run in (runs[:1].tolist() if one else np.unique(runs).tolist())}
        lengths = _following(starts, len(values), entries) - starts[entries]
        if one:
            readings = _expanded(starts[entries], lengths)
            return [SeriesPart(rank, timestamps[readings], values[readings]) for rank in ranks.values()]
        parts: list[SeriesPart] = []
        for run, rank in ranks.items():
            chosen = runs == run
            readings = _expanded(starts[entries[chosen]], lengths[chosen])
            parts.append(SeriesPart(rank, timestamps[readings], values[readings]))
        return parts

    def _entries_of(self, number: int) -> npt.NDArray[np.int32]:
        """Returns the entries of a series, in the order of arrival."""
        count = int(self._counts[number])
        series, _, _, earlier, _ = self._entries.present()
        if count > _CHAIN:
            return np.flatnonzero(series == number).astype(np.int32)
        entries = np.empty(count, np.int32)
        entry = int(self._newest[number])
        for place in range(count - 1, -1, -1):
            entries[place] = entry
            entry = int(earlier[entry])
        return entries

    def numbers(self) -> Numbers:
        """Returns the numbers of the series that have readings, in increasing order."""
        with self._lock:
            return np.flatnonzero(self._counts).astype(np.int32)

    def packed(self) -> Iterator[PackedReadings]:
        """Yields the present readings, sorted, and each series once. Bounds how many are sorted at once."""
        with self._lock:
            counts = self._counts.copy()
            run_ranks = list(self._run_ranks)
            entries, readings = self._entries.present(), self._readings.present()
            runs = self._batches.present()[0]
        if not len(readings[0]):
            return
        series, starts, batches, _, places = entries
        lengths = _following(starts, len(readings[0])) - starts
        # The place of each entry follows from its series and from how many entries the series had before
        ends = np.cumsum(counts)
        order = np.empty(len(series), np.int32)
        order[(ends - counts)[series] + places] = np.arange(len(series), dtype=np.int32)
        numbers = np.flatnonzero(counts).astype(np.int32)
        sizes = np.add.reduceat(lengths[order], (ends - counts)[numbers])  # readings by series
        sorting = _Sorting(series, starts, lengths, runs[batches], run_ranks, *readings)
        for first, after in _cuts(numbers, sizes):
            start, end = ends[numbers[first]] - counts[numbers[first]], ends[numbers[after - 1]]
            yield sorting.packed(order[start:end])


class _Sorting:
    """Sorts entries of a memtable."""

    def __init__(  # noqa: PLR0917
        self,
        series: Numbers,
        starts: Numbers,
        lengths: Numbers,
        runs: Numbers,
        run_ranks: list[Rank],
        timestamps: Timestamps,
        values: Values,
    ) -> None:
        self._series = series  # of each entry, as the next three
        self._starts = starts
        self._lengths = lengths
        self._runs = runs
        self._timestamps = timestamps
        self._values = values
        self._single = len(lengths) == len(values)  # each entry has one reading
        # The runs in the order of their ranks, which Ranks needs
        by_rank = sorted(range(len(run_ranks)), key=run_ranks.__getitem__)
        self._sources = tuple(dict.fromkeys(run_ranks[run][:-1] for run in by_rank))
        place_of = {source: place for place, source in enumerate(self._sources)}
        self._levels = np.empty(len(run_ranks), np.int32)  # by run
        self._levels[by_rank] = np.arange(len(run_ranks), dtype=np.int32)
        self._places = np.array([place_of[run_ranks[run][:-1]] for run in by_rank])  # by level
        self._sequences = np.array([run_ranks[run][-1] for run in by_rank], np.int64)

    def packed(self, entries: Numbers) -> PackedReadings:
        """Packs the readings of entries, which are in the order of series and arrival."""
        readings: Positions
        if self._single:
            readings, numbers = entries.astype(np.intp), self._series[entries]
        else:
            lengths = self._lengths[entries]
            readings = _expanded(self._starts[entries], lengths)
            numbers = np.repeat(self._series[entries], lengths)
        order, timestamps = sort_in_time(readings, numbers, self._timestamps[readings], self._levels_at)
        if len(order) < len(numbers):
            numbers = self._series[self._entries_at(order)]
        starts = np.flatnonzero(np.append(True, numbers[1:] != numbers[:-1]))
        return PackedReadings(
            numbers[starts],
            np.diff(np.append(starts, len(numbers))),
            timestamps,
            self._values[order],
            self._ranks_at(order),
        )

    def _entries_at(self, readings: Positions) -> Positions:
        """Returns the entries of readings."""
        return readings if self._single else np.searchsorted(self._starts, readings, side="right") - 1

    def _levels_at(self, readings: Positions) -> npt.NDArray[np.int32]:
        return self._levels[self._runs[self._entries_at(readings)]]

    def _ranks_at(self, readings: Positions) -> Ranks:
        if len(self._sequences) == 1:
            return Ranks.uniform((*self._sources[0], int(self._sequences[0])), len(readings))
        levels = self._levels_at(readings)
        starts = np.flatnonzero(np.append(True, levels[1:] != levels[:-1]))
        lengths = np.diff(np.append(starts, len(levels)))
        runs = levels[starts]
        return Ranks.from_runs(self._sources, self._places[runs], self._sequences[runs], lengths)


def _cuts(numbers: Numbers, sizes: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Divides series into those that are sorted at once, if possible between two buckets.

    Args:
        numbers: The numbers of the series.
        sizes: The number of readings of each.
    """
    total = np.cumsum(sizes)
    bucket_ends = np.flatnonzero(np.append(np.diff(numbers // BLOCK_SERIES), 1)) + 1
    first = 0
    while first < len(numbers):
        before = int(total[first - 1]) if first else 0
        limit = max(first + 1, int(np.searchsorted(total, before + _SORTED_AT_ONCE, side="right")))
        at = int(np.searchsorted(bucket_ends, limit, side="right"))
        bucket_end = int(bucket_ends[at - 1]) if at else 0
        after = bucket_end if bucket_end > first else limit
        yield first, after
        first = after


def _following(starts: Numbers, total: int, entries: npt.NDArray[Any] | None = None) -> npt.NDArray[np.int32]:
    """Returns the position after the last reading of entries; those of all by default."""
    if entries is None:
        return np.append(starts[1:], np.int32(total))
    ends = np.full(len(entries), total, np.int32)
    inner = entries < len(starts) - 1
    ends[inner] = starts[entries[inner] + 1]
    return ends


def _expanded(starts: npt.NDArray[Any], lengths: npt.NDArray[Any]) -> Positions:
    """Returns the positions of the readings of entries."""
    if len(starts) == len(lengths) and lengths.max() == 1:
        return starts.astype(np.intp)
    ends = np.cumsum(lengths, dtype=np.intp)
    positions = np.arange(ends[-1], dtype=np.intp)
    positions += np.repeat(starts - (ends - lengths), lengths)
    return positions


def _lengthened(column: npt.NDArray[np.int32], length: int, rest: int) -> npt.NDArray[np.int32]:
    """Returns a longer copy of a column whose new places have the value `rest`."""
    longer = np.full(length, rest, np.int32)
    longer[: len(column)] = column
    return longer
