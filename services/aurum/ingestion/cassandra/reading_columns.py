"""Readings of many series in the order in which they arrive, in columns that grow."""

import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from aurum.ingestion.cassandra.schema import group_of
from aurum.ingestion.series_index import SeriesIndex
from aurum.readings.batch import Batch, Numbers, SeriesKey, Timestamps, Values
from aurum.storage.packed_readings import PackedReadings, count_by_series, sort_in_time
from aurum.storage.ranks import Integers, Rank, Ranked, Ranks, merge_ranked

READING_BYTES = 24  # of memory for a reading
_LEAST = 1024  # readings for which there is room at first
_SMALL = 2**16  # numbers up to here are sorted fast


class ReadingColumns:
    """Readings of many series. One thread adds; any thread may read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.count = 0
        self._numbers = np.empty(_LEAST, np.int32)
        self._timestamps = np.empty(_LEAST, np.int64)
        self._values = np.empty(_LEAST, np.float64)
        self._runs = np.empty(_LEAST, np.int32)  # for each reading, the index of its rank
        self._sources: dict[Rank, int] = {}
        self._places: list[int] = []  # for each rank, the index of its source
        self._sequences: list[int] = []  # for each rank, its sequence

    @property
    def nbytes(self) -> int:
        """The memory that the columns take."""
        return READING_BYTES * len(self._values) + 120 * len(self._places)

    def add(
        self, numbers: Numbers, lengths: npt.NDArray[np.integer], timestamps: Timestamps, values: Values, ranks: Ranks
    ) -> None:
        """Adds readings.

        Args:
            numbers: The number of each series.
            lengths: The number of readings of each series.
            timestamps: The times of all series, one series after the other.
            values: As many values.
            ranks: As many ranks.
        """
        end = self.count + len(values)
        with self._lock:
            if end > len(self._values):
                self._grow(end)
            first = len(self._places)
            places = [self._sources.setdefault(source, len(self._sources)) for source in ranks.sources]
            self._places += [places[place] for place in ranks.places.tolist()]
            self._sequences += ranks.sequences.tolist()
            at = slice(self.count, end)
            self._numbers[at] = numbers if len(numbers) == len(values) else np.repeat(numbers, lengths)
            self._timestamps[at] = timestamps
            self._values[at] = values
            one = len(ranks.lengths) == 1
            self._runs[at] = first if one else np.repeat(np.arange(first, first + len(ranks.lengths)), ranks.lengths)
            self.count = end

    def add_batch(self, series: SeriesIndex, batch: Batch, rank: Rank, only: SeriesKey | None = None) -> None:
        """Adds the readings of a durable batch.

        Args:
            series: The numbers of the series. Those that are new are added.
            batch: The batch.
            rank: Its rank.
            only: The series to add; by default all.
        """
        numbers = series.assign(batch.keys)
        if only is None:
            ranks = Ranks.uniform(rank, batch.readings)
            self.add(numbers, batch.lengths, batch.timestamps, batch.values, ranks)
        elif only in batch.keys.keys:
            place = batch.keys.keys.index(only)
            start = int(batch.lengths[:place].sum())
            at = slice(start, start + int(batch.lengths[place]))
            ranks = Ranks.uniform(rank, at.stop - at.start)
            some = slice(place, place + 1)
            self.add(numbers[some], batch.lengths[some], batch.timestamps[at], batch.values[at], ranks)

    def of_series(self, number: int) -> Ranked | None:
        """Returns the readings of a series in time order, without those that others replace; None without any."""
        with self._lock:
            count = self.count
            numbers, timestamps, values, runs = self._numbers, self._timestamps, self._values, self._runs
        found = np.flatnonzero(numbers[:count] == number)
        if not len(found):
            return None
        runs = runs[found]
        used, lengths = count_by_series(runs)
        with self._lock:
            places = np.array([self._places[run] for run in used.tolist()], np.int64)
            sequences = np.array([self._sequences[run] for run in used.tolist()], np.int64)
            sources = list(self._sources)
        ranks = Ranks.from_runs(sources, places, sequences, lengths)
        return merge_ranked([(timestamps[found], values[found], ranks)])

    def packed(self, series: SeriesIndex, *, consecutive: bool = False) -> list[tuple[int, PackedReadings]]:
        """Returns the readings of each group of machines that has some, with the group.

        Args:
            series: The numbers of the series.
            consecutive: Whether consecutive sequences of a source get the rank of the last of them, which is valid
                if the columns have all readings of these batches.
        """
        with self._lock:
            count = self.count
            numbers, all_timestamps, all_values, all_runs = (
                self._numbers[:count], self._timestamps[:count], self._values[:count], self._runs[:count],
            )  # fmt: skip
            places, sequences, sources = self._rank_columns()
        if not count:
            return []
        present = np.zeros(int(numbers.max()) + 1, np.bool_)
        present[numbers] = True
        found = np.flatnonzero(present)
        groups = _groups_of(series, found.astype(np.int32))
        by_group = np.argsort(groups, kind="stable")
        position_of = np.empty(len(present), np.int32)
        position_of[found[by_group]] = np.arange(len(found), dtype=np.int32)
        positions = position_of[numbers]
        order = _stable_order(positions, len(found))
        levels = np.empty(len(places), np.int64)
        levels[np.lexsort((sequences, places))] = np.arange(len(places))
        order, timestamps = sort_in_time(
            order, positions[order], all_timestamps[order], lambda some: levels[all_runs[some]]
        )
        if consecutive:
            sequences = _last_of_runs(places, sequences)
        values, runs = all_values[order], all_runs[order]
        sorted_positions, lengths = count_by_series(positions[order])
        used, run_lengths = count_by_series(runs)
        ranks = Ranks.from_runs(sources, places[used], sequences[used], run_lengths)
        all_numbers = found[by_group].astype(np.int32)[sorted_positions]
        all_groups = groups[by_group][sorted_positions]
        return list(_by_group(PackedReadings(all_numbers, lengths, timestamps, values, ranks), all_groups))

    def _rank_columns(self) -> tuple[Integers, Integers, list[Rank]]:
        """Returns for each rank the place of its source and the sequence, and the sources in sorted order."""
        sources = sorted(self._sources)
        place_of = np.empty(len(sources), np.int64)
        for place, source in enumerate(sources):
            place_of[self._sources[source]] = place
        return place_of[np.array(self._places, np.int64)], np.array(self._sequences, np.int64), sources

    def _grow(self, least: int) -> None:
        size = max(least, len(self._values) * 5 // 4)
        for name in ("_numbers", "_timestamps", "_values", "_runs"):
            column = getattr(self, name)
            larger = np.empty(size, column.dtype)
            larger[: self.count] = column[: self.count]
            setattr(self, name, larger)


def _by_group(readings: PackedReadings, groups: Numbers) -> "Sequence[tuple[int, PackedReadings]]":
    cuts = np.flatnonzero(np.append(True, groups[1:] != groups[:-1]))
    ends = readings.ends
    parts: list[tuple[int, PackedReadings]] = []
    for first, last in zip(cuts.tolist(), [*cuts[1:].tolist(), len(groups)], strict=True):
        start, end = int(ends[first] - readings.lengths[first]), int(ends[last - 1])
        part = PackedReadings(
            readings.numbers[first:last],
            readings.lengths[first:last],
            readings.timestamps[start:end],
            readings.values[start:end],
            readings.ranks.between(start, end),
        )
        parts.append((int(groups[first]), part))
    return parts


def _groups_of(series: SeriesIndex, numbers: Numbers) -> Numbers:
    """Returns the group of each series."""
    machines = series.machines_of(numbers)
    found, places = np.unique(machines, return_inverse=True)
    groups = np.array([group_of(series.machine_id(machine)) for machine in found.tolist()], np.int32)
    return groups[places]


def _stable_order(positions: Numbers, count: int) -> npt.NDArray[np.intp]:
    """Sorts positions below `count`. The order of equal ones stays."""
    if count <= _SMALL:
        return np.argsort(positions.astype(np.uint16), kind="stable")
    order = np.argsort((positions & (_SMALL - 1)).astype(np.uint16), kind="stable")
    return order[np.argsort((positions >> 16).astype(np.uint16)[order], kind="stable")]


def _last_of_runs(places: Integers, sequences: Integers) -> Integers:
    """Returns for each sequence the last one of the consecutive sequences of its source."""
    order = np.lexsort((sequences, places))
    place, sequence = places[order], sequences[order]
    ends = np.append((place[1:] != place[:-1]) | (sequence[1:] > sequence[:-1] + 1), True)
    last = sequence[np.flatnonzero(ends)[np.append(0, np.cumsum(ends)[:-1])]]
    result = np.empty_like(sequences)
    result[order] = last
    return result
