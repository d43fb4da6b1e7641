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

from aurum.ingestion.memtable_packing import MemtableColumns, expanded, following, pack
from aurum.ingestion.series_index import SeriesIndex
from aurum.readings.batch import Batch, Numbers, SeriesKey, Timestamps, Values
from aurum.storage.packed_readings import PackedReadings
from aurum.storage.ranks import Rank

_MOST_NEW_ROWS = 262_144  # by which columns grow at a time
_CHAIN = 64  # entries of a series that are followed one by one; more are found by a search in all
READING_BYTES, ENTRY_BYTES = 16, 20  # memory of each
_BATCH_BYTES, _SERIES_BYTES = 100, 8
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
        self._batches = _Columns(256, np.int32, np.int64)  # run, sequence
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
            READING_BYTES * self._readings.count
            + ENTRY_BYTES * self._entries.count
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
            runs, sequences = self._batches.columns
            runs[self._batches.count], sequences[self._batches.count] = self._run_of(rank), rank[-1]
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
        lengths = following(starts, len(values), entries) - starts[entries]
        if one:
            readings = expanded(starts[entries], lengths)
            return [SeriesPart(rank, timestamps[readings], values[readings]) for rank in ranks.values()]
        parts: list[SeriesPart] = []
        for run, rank in ranks.items():
            chosen = runs == run
            readings = expanded(starts[entries[chosen]], lengths[chosen])
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
        """Yields the present readings as `aurum.ingestion.memtable_packing.pack` does."""
        with self._lock:
            series, starts, batches, _, places = self._entries.present()
            runs, sequences = self._batches.present()
            timestamps, values = self._readings.present()
            run_ranks, counts = list(self._run_ranks), self._counts.copy()
        return pack(
            MemtableColumns(series, starts, batches, places, runs, sequences, run_ranks, timestamps, values, counts)
        )


def _lengthened(column: npt.NDArray[np.int32], length: int, rest: int) -> npt.NDArray[np.int32]:
    """Returns a longer copy of a column whose new places have the value `rest`."""
    longer = np.full(length, rest, np.int32)
    longer[: len(column)] = column
    return longer
