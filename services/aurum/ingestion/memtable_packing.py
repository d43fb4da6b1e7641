"""Sorts the readings of a memtable for the tables, a limited number at once.

Readings are taken by entries, see aurum.ingestion.memtable.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from aurum.readings.batch import Numbers, Timestamps, Values
from aurum.storage.block import BLOCK_SERIES
from aurum.storage.packed_readings import PackedReadings, Positions, sort_in_time
from aurum.storage.ranks import Rank, Ranks

_SORTED_AT_ONCE = 250_000  # readings; sorting takes about 50 bytes for each
Sequences = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class MemtableColumns:
    """The content of a memtable.

    Attributes:
        series: The series of each entry.
        starts: The first reading of each entry.
        batches: The batch of each entry.
        places: For each entry, how many earlier entries its series has.
        runs: The run of each batch.
        sequences: The sequence of each batch.
        run_ranks: For each run, the rank of its last batch.
        timestamps: The time of each reading.
        values: The value of each reading.
        counts: For each series, how many entries it has.
    """

    series: Numbers
    starts: Numbers
    batches: Numbers
    places: Numbers
    runs: Numbers
    sequences: Sequences
    run_ranks: list[Rank]
    timestamps: Timestamps
    values: Values
    counts: Numbers


def pack(columns: MemtableColumns) -> Iterator[PackedReadings]:
    """Yields the readings, sorted by series.

    A very long series is yielded in several pieces, which may have readings at the same time. Their ranks tell which of
    these counts.
    """
    if not len(columns.values):
        return
    # The place of each entry follows from its series and from how many entries the series had before
    ends = np.cumsum(columns.counts)
    starts = ends - columns.counts
    order = np.empty(len(columns.series), np.int32)
    order[starts[columns.series] + columns.places] = np.arange(len(order), dtype=np.int32)
    numbers = np.flatnonzero(columns.counts).astype(np.int32)
    sorting = _Sorting(columns)
    sizes = np.add.reduceat(sorting.lengths[order], starts[numbers])  # readings by series
    for first, after in _cuts(numbers, sizes):
        entries = order[starts[numbers[first]] : ends[numbers[after - 1]]]
        if sizes[first:after].sum() <= _SORTED_AT_ONCE:
            yield sorting.packed(entries)
        else:  # one series
            for piece in _pieces(entries, sorting.lengths):
                yield sorting.packed(piece, divided=True)


class _Sorting:
    """Sorts entries of a memtable."""

    def __init__(self, columns: MemtableColumns) -> None:
        self._columns = columns
        self.lengths = following(columns.starts, len(columns.values)) - columns.starts  # readings by entry
        self._single = len(self.lengths) == len(columns.values)  # each entry has one reading
        run_ranks = columns.run_ranks
        # The runs in the order of their ranks, which Ranks needs
        by_rank = sorted(range(len(run_ranks)), key=run_ranks.__getitem__)
        self._sources = tuple(dict.fromkeys(run_ranks[run][:-1] for run in by_rank))
        place_of = {source: place for place, source in enumerate(self._sources)}
        self._levels = np.empty(len(run_ranks), np.int32)  # by run
        self._levels[by_rank] = np.arange(len(run_ranks), dtype=np.int32)
        self._places = np.array([place_of[run_ranks[run][:-1]] for run in by_rank])  # by level
        self._sequences = np.array([run_ranks[run][-1] for run in by_rank], np.int64)  # by level: the last ones

    def packed(self, entries: Numbers, *, divided: bool = False) -> PackedReadings:
        """Packs the readings of entries, which are in the order of series and arrival.

        With `divided`, the entries are some of those of a series. Then the readings of a run get the rank of its last
        batch among them, instead of that of its last batch, which other entries have too.
        """
        readings: Positions
        if self._single:
            readings, numbers = entries.astype(np.intp), self._columns.series[entries]
        else:
            lengths = self.lengths[entries]
            readings = expanded(self._columns.starts[entries], lengths)
            numbers = np.repeat(self._columns.series[entries], lengths)
        order, timestamps = sort_in_time(readings, numbers, self._columns.timestamps[readings], self._levels_at)
        if len(order) < len(numbers):
            numbers = self._columns.series[self._entries_at(order)]
        starts = np.flatnonzero(np.append(True, numbers[1:] != numbers[:-1]))
        return PackedReadings(
            numbers[starts],
            np.diff(np.append(starts, len(numbers))),
            timestamps,
            self._columns.values[order],
            self._ranks_at(order, self._own_sequences(entries) if divided else self._sequences),
        )

    def _entries_at(self, readings: Positions) -> Positions:
        """Returns the entries of readings."""
        return readings if self._single else np.searchsorted(self._columns.starts, readings, side="right") - 1

    def _levels_at(self, readings: Positions) -> npt.NDArray[np.int32]:
        return self._levels[self._columns.runs[self._columns.batches[self._entries_at(readings)]]]

    def _own_sequences(self, entries: Numbers) -> npt.NDArray[np.int64]:
        """Returns for each level the sequence of the last of its batches that has one of the entries."""
        batches = self._columns.batches[entries]
        sequences = np.zeros_like(self._sequences)
        np.maximum.at(sequences, self._levels[self._columns.runs[batches]], self._columns.sequences[batches])
        return sequences

    def _ranks_at(self, readings: Positions, sequences: npt.NDArray[np.int64]) -> Ranks:
        """Returns the ranks of readings. `sequences`: the sequence of each level."""
        if len(sequences) == 1:
            return Ranks.uniform((*self._sources[0], int(sequences[0])), len(readings))
        levels = self._levels_at(readings)
        starts = np.flatnonzero(np.append(True, levels[1:] != levels[:-1]))
        lengths = np.diff(np.append(starts, len(levels)))
        runs = levels[starts]
        return Ranks.from_runs(self._sources, self._places[runs], sequences[runs], lengths)


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
        limit = _end_at_once(total, first)
        at = int(np.searchsorted(bucket_ends, limit, side="right"))
        bucket_end = int(bucket_ends[at - 1]) if at else 0
        after = bucket_end if bucket_end > first else limit
        yield first, after
        first = after


def _pieces(entries: Numbers, lengths: Numbers) -> Iterator[Numbers]:
    """Divides the entries of a series into those that are sorted at once. `lengths`: the readings of every entry."""
    total = np.cumsum(lengths[entries], dtype=np.int64)
    first = 0
    while first < len(entries):
        after = _end_at_once(total, first)
        yield entries[first:after]
        first = after


def _end_at_once(total: npt.NDArray[np.int64], first: int) -> int:
    """Returns the end of what is sorted at once and begins at `first`: at least one. `total`: readings up to each."""
    before = int(total[first - 1]) if first else 0
    return max(first + 1, int(np.searchsorted(total, before + _SORTED_AT_ONCE, side="right")))


def following(starts: Numbers, total: int, entries: npt.NDArray[Any] | None = None) -> npt.NDArray[np.int32]:
    """Returns the position after the last reading of entries; those of all by default."""
    if entries is None:
        return np.append(starts[1:], np.int32(total))
    ends = np.full(len(entries), total, np.int32)
    inner = entries < len(starts) - 1
    ends[inner] = starts[entries[inner] + 1]
    return ends


def expanded(starts: npt.NDArray[Any], lengths: npt.NDArray[Any]) -> Positions:
    """Returns the positions of the readings of entries."""
    if len(starts) == len(lengths) and lengths.max() == 1:
        return starts.astype(np.intp)
    ends = np.cumsum(lengths, dtype=np.intp)
    positions = np.arange(ends[-1], dtype=np.intp)
    positions += np.repeat(starts - (ends - lengths), lengths)
    return positions
