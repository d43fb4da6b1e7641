"""Recent readings: durable in the log and not yet in the tables.

They are held in memory for queries and for packing.
"""

import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from aurum.readings.batch import Batch, Timestamps, Values

SeriesKey = tuple[str, str]  # machine id, sensor
_COUNT_BITS = 20  # bits of a place for the number of readings, at most 200,000
_START_BITS = 20  # bits of a place for the start within the batch
_SORTED_AT_ONCE = 250_000  # readings; sorting takes about 50 bytes for each
_Order = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class SeriesPart:
    """Readings of one series in one batch. `rank` is (source, sequence); parts of a higher rank replace others."""

    rank: tuple[int, int]
    timestamps: Timestamps
    values: Values


@dataclass(frozen=True, slots=True)
class _BatchColumns:
    """A batch in columns.

    Attributes:
        rank: Its source and sequence.
        run: The same for consecutive batches of a source without a missing sequence.
        timestamps: The times of all its readings.
        values: As many values.
        numbers: The number of each of its series, see Memtable._numbers.
        lengths: The number of readings of each of its series.
    """

    rank: tuple[int, int]
    run: int
    timestamps: Timestamps
    values: Values
    numbers: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class PackedSeries:
    """Sorted readings of one series. Of readings at the same time, only the one with the highest rank is left.

    Attributes:
        key: The series.
        rank: The rank of the last batch. All readings may have it, because no other rank lies in between.
        last_rank: The rank of the batch of the last reading.
        timestamps: The times.
        values: As many values.
    """

    key: SeriesKey
    rank: tuple[int, int]
    last_rank: tuple[int, int]
    timestamps: Timestamps
    values: Values


@dataclass(slots=True)
class _Joined:
    """The joined parts of a series.

    Attributes:
        places: How many batches of the series are joined.
        parts: The joined parts.
        run: The run of the last part.
    """

    places: int
    parts: list[SeriesPart]
    run: int


class Memtable:
    """Batches in the order of arrival.

    One thread adds. Any thread may read, but only one at a time may call `joined`. The joined parts are a second
    copy, which `nbytes` does not count.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._batches: list[_BatchColumns] = []
        self._numbers: dict[SeriesKey, int] = {}
        # By series number: its places. A place packs the index of a batch, a start and a count into one integer,
        # which takes a third of the memory of an object.
        self._places: list[list[int]] = []
        self._runs: dict[int, tuple[int, int]] = {}  # by source: its last sequence, and the run that it is in
        self._joined: dict[SeriesKey, _Joined] = {}
        self.nbytes = 0
        self.readings = 0

    def add_batch(self, batch: Batch, rank: tuple[int, int]) -> None:
        """Adds a batch that has become durable.

        `rank` is its source and sequence, by which readings replace each other.
        """
        source, sequence = rank
        with self._lock:
            index = len(self._batches) << (_COUNT_BITS + _START_BITS)
            numbers: list[int] = []
            lengths: list[int] = []
            start = 0
            for series in batch.series:
                key = (series.machine_id, series.sensor)
                number = self._numbers.get(key)
                if number is None:
                    number = self._numbers[key] = len(self._places)
                    self._places.append([])
                count = len(series.values)
                self._places[number].append(index | start << _COUNT_BITS | count)
                numbers.append(number)
                lengths.append(count)
                start += count
            one = len(batch.series) == 1
            last, run = self._runs.get(source, (None, 0))
            if last is None or sequence != last + 1:
                run = len(self._batches)
            self._runs[source] = sequence, run
            received = _BatchColumns(
                rank,
                run,
                batch.series[0].timestamps if one else np.concatenate([series.timestamps for series in batch.series]),
                batch.series[0].values if one else np.concatenate([series.values for series in batch.series]),
                np.array(numbers, np.int32),
                np.array(lengths, np.int32),
            )
            self._batches.append(received)
            self.nbytes += 16 * start + 60 * len(numbers) + 800
            self.readings += start

    def parts(self, key: SeriesKey) -> list[SeriesPart]:
        """Returns the readings of a series, as they arrived."""
        return [part for _, part in self._parts_since(key, 0)]

    def joined_parts(self, key: SeriesKey) -> list[SeriesPart]:
        """Returns the readings of a series in few parts.

        Consecutive batches of a source form one part with the rank of the last of them, because nothing in the tables
        can have a rank in between. Parts joined by earlier calls are reused.
        """
        joined = self._joined.get(key)
        if joined is None:
            joined = self._joined[key] = _Joined(0, [], -1)
        new_parts = self._parts_since(key, joined.places)
        joined.places += len(new_parts)
        for run, together in itertools.groupby(new_parts, key=lambda each: each[0]):
            parts = [part for _, part in together]
            if run == joined.run:
                parts.insert(0, joined.parts.pop())
            joined.run = run
            joined.parts.append(_concatenate(parts))
        return list(joined.parts)

    def _parts_since(self, key: SeriesKey, first: int) -> list[tuple[int, SeriesPart]]:
        """Returns the parts of a series from its batch number `first` on, each with its run."""
        with self._lock:
            number = self._numbers.get(key)
            places = self._places[number][first:] if number is not None else []
            batches = self._batches
        parts: list[tuple[int, SeriesPart]] = []
        for place in places:
            start = place >> _COUNT_BITS & (1 << _START_BITS) - 1
            end = start + (place & (1 << _COUNT_BITS) - 1)
            batch = batches[place >> (_COUNT_BITS + _START_BITS)]
            parts.append((batch.run, SeriesPart(batch.rank, batch.timestamps[start:end], batch.values[start:end])))
        return parts

    def series_keys(self) -> list[SeriesKey]:
        """Returns the series that have readings."""
        with self._lock:
            return list(self._numbers)

    def packed(self) -> Iterator[PackedSeries]:
        """Yields every series, once per run of consecutive batches of a source. Nothing may be added afterwards.

        A very long series is yielded several times per run, each time with other batches of the run.
        """
        runs: list[list[_BatchColumns]] = []
        for batch in sorted(self._batches, key=lambda batch: batch.rank):  # of equal times the last one counts
            source, sequence = batch.rank
            if not runs or runs[-1][-1].rank != (source, sequence - 1):
                runs.append([])
            runs[-1].append(batch)
        keys = list(self._numbers)
        for batches in runs:
            for piece in _pieces(batches, len(keys)):
                yield from _packed(piece, keys)


def _concatenate(parts: list[SeriesPart]) -> SeriesPart:
    """Joins parts into one with the rank of the last of them."""
    if len(parts) == 1:
        return parts[0]
    timestamps = np.concatenate([part.timestamps for part in parts])
    return SeriesPart(parts[-1].rank, timestamps, np.concatenate([part.values for part in parts]))


def _pieces(batches: list[_BatchColumns], series: int) -> Iterator[list[_BatchColumns]]:
    """Divides consecutive batches so that sorting takes little memory: by series, and very long series by batches.

    Args:
        batches: The batches.
        series: The number of series, which is above all of theirs.
    """
    if sum(len(batch.values) for batch in batches) <= _SORTED_AT_ONCE:
        yield batches
        return
    counts = np.bincount(
        np.concatenate([batch.numbers for batch in batches]),
        np.concatenate([batch.lengths for batch in batches]),
        series,
    )
    places = np.cumsum(counts) // _SORTED_AT_ONCE
    cuts = [0, *(np.flatnonzero(places[1:] != places[:-1]) + 1).tolist(), series]
    for first, end in itertools.pairwise(cuts):
        piece: list[_BatchColumns] = []
        readings = 0
        for batch in batches:
            part = _part_of(batch, first, end)
            if readings and readings + len(part.values) > 2 * _SORTED_AT_ONCE:
                yield piece
                piece, readings = [], 0
            if len(part.values):
                piece.append(part)
                readings += len(part.values)
        if piece:
            yield piece


def _part_of(batch: _BatchColumns, first: int, end: int) -> _BatchColumns:
    """Returns the series of a batch with numbers from `first` up to `end`."""
    chosen = (batch.numbers >= first) & (batch.numbers < end)
    if chosen.all():
        return batch
    readings = np.repeat(chosen, batch.lengths)
    return replace(
        batch,
        timestamps=batch.timestamps[readings],
        values=batch.values[readings],
        numbers=batch.numbers[chosen],
        lengths=batch.lengths[chosen],
    )


def _packed(batches: list[_BatchColumns], keys: list[SeriesKey]) -> Iterator[PackedSeries]:
    """Yields the series of consecutive batches of a source, sorted and without replaced readings."""
    order, numbers, timestamps = _sorted(batches, len(keys))
    # Joined after the times are sorted, so that fewer copies exist at a time
    values = np.concatenate([batch.values for batch in batches])[order]
    newest: dict[int, tuple[int, int]] = {}
    for batch in batches:
        newest.update(dict.fromkeys(batch.numbers.tolist(), batch.rank))
    ends = np.cumsum([len(batch.values) for batch in batches])  # of the batches, before they were sorted
    cuts = [0, *(np.flatnonzero(numbers[1:] != numbers[:-1]) + 1).tolist(), len(numbers)]
    lasts = np.searchsorted(ends, order[np.array(cuts[1:]) - 1], side="right").tolist()
    for (start, end), last in zip(itertools.pairwise(cuts), lasts, strict=True):
        number = int(numbers[start])
        yield PackedSeries(keys[number], newest[number], batches[last].rank, timestamps[start:end], values[start:end])


def _sorted(batches: list[_BatchColumns], series: int) -> tuple[_Order, npt.NDArray[Any], Timestamps]:
    """Sorts the readings of batches by series and time, without those that are replaced by later ones.

    Args:
        batches: The batches.
        series: The number of series, which is above all of theirs.

    Returns:
        Where each of the sorted readings is in the batches, the number of its series, and its time.
    """
    small = np.uint16 if series < 2**16 else np.int32
    numbers = np.concatenate([np.repeat(batch.numbers.astype(small), batch.lengths) for batch in batches])
    timestamps = np.concatenate([batch.timestamps for batch in batches])
    # Sorted by series first, which is fast for few of them. The readings of each are then usually in time order.
    order = np.argsort(numbers, kind="stable").astype(np.int32)
    numbers, timestamps = numbers[order], timestamps[order]
    rises = _is_increasing(numbers, timestamps)
    if rises.all():
        return order, numbers, timestamps
    again = np.lexsort((timestamps, numbers)).astype(np.int32)  # stable: of equal times the last one stays the last
    rises = _is_increasing(numbers[again], timestamps[again])
    again = again[np.append(rises, True)]
    return order[again], numbers[again], timestamps[again]


def _is_increasing(numbers: npt.NDArray[Any], timestamps: Timestamps) -> npt.NDArray[np.bool_]:
    """Returns for each reading but the last whether the next one is later, or of another series."""
    rises: npt.NDArray[np.bool_] = np.logical_or(timestamps[1:] > timestamps[:-1], numbers[1:] != numbers[:-1])
    return rises
