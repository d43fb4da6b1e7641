"""Recent readings: durable in the log and not yet in the tables.

They are held in memory for queries and for packing.
"""

import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aurum.readings.batch import Batch, Timestamps, Values

SeriesKey = tuple[str, str]  # machine id, sensor
_COUNT_BITS = 20  # bits of a place for the number of readings, at most 200,000
_START_BITS = 20  # bits of a place for the start within the batch


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
        """Yields every series, once per run of consecutive batches of a source. Nothing may be added afterwards."""
        runs: list[list[_BatchColumns]] = []
        for batch in sorted(self._batches, key=lambda batch: batch.rank):  # of equal times the last one counts
            source, sequence = batch.rank
            if not runs or runs[-1][-1].rank != (source, sequence - 1):
                runs.append([])
            runs[-1].append(batch)
        keys = list(self._numbers)
        for batches in runs:
            yield from _packed(batches, keys)


def _concatenate(parts: list[SeriesPart]) -> SeriesPart:
    """Joins parts into one with the rank of the last of them."""
    if len(parts) == 1:
        return parts[0]
    timestamps = np.concatenate([part.timestamps for part in parts])
    return SeriesPart(parts[-1].rank, timestamps, np.concatenate([part.values for part in parts]))


def _packed(batches: list[_BatchColumns], keys: list[SeriesKey]) -> Iterator[PackedSeries]:
    """Yields the series of consecutive batches of a source, sorted and without replaced readings."""
    numbers = np.concatenate([np.repeat(batch.numbers, batch.lengths) for batch in batches])
    timestamps = np.concatenate([batch.timestamps for batch in batches])
    values = np.concatenate([batch.values for batch in batches])
    origins = np.repeat(np.arange(len(batches), dtype=np.int32), [len(batch.values) for batch in batches])
    # Sorted by series first, which is fast for few of them. The readings of each are then usually in time order.
    order = np.argsort(numbers.astype(np.uint16) if len(keys) < 2**16 else numbers, kind="stable")
    if not _is_increasing(numbers[order], timestamps[order]).all():
        order = np.lexsort((timestamps, numbers))
    numbers, timestamps, values, origins = numbers[order], timestamps[order], values[order], origins[order]
    rises = _is_increasing(numbers, timestamps)
    if not rises.all():
        last_of_time = np.append(rises, True)
        numbers, timestamps, values = numbers[last_of_time], timestamps[last_of_time], values[last_of_time]
        origins = origins[last_of_time]
    newest: dict[int, tuple[int, int]] = {}
    for batch in batches:
        newest.update(dict.fromkeys(batch.numbers.tolist(), batch.rank))
    cuts = [0, *(np.flatnonzero(numbers[1:] != numbers[:-1]) + 1).tolist(), len(numbers)]
    for start, end in itertools.pairwise(cuts):
        number = int(numbers[start])
        last = batches[origins[end - 1]].rank
        yield PackedSeries(keys[number], newest[number], last, timestamps[start:end], values[start:end])


def _is_increasing(numbers: npt.NDArray[np.int32], timestamps: Timestamps) -> npt.NDArray[np.bool_]:
    """Returns for each reading but the last whether the next one is later, or of another series."""
    rises: npt.NDArray[np.bool_] = np.logical_or(timestamps[1:] > timestamps[:-1], numbers[1:] != numbers[:-1])
    return rises
