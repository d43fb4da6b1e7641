"""Moves readings from slots into blocks, from blocks into larger blocks, and from blocks into segments.

Several replicas may do it at once, and any of them may be killed at any moment: what replaces rows is durable in a
quorum before they are deleted, only rows that were read are deleted, and no two merges write the same row. Readings
that two merges have written have the same ranks, so that each counts once, and the next merge joins them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from aurum.ingestion.cassandra import summaries
from aurum.ingestion.cassandra.blocks import (
    BlockKey,
    Names,
    Periods,
    Place,
    by_period,
    list_blocks,
    new_id,
    read_all,
    report_damage,
    rows_of,
)
from aurum.ingestion.cassandra.compaction import Place as Day
from aurum.ingestion.cassandra.follower import list_batches, load_batches
from aurum.ingestion.cassandra.open_slots import BatchKey
from aurum.ingestion.cassandra.reading_columns import ReadingColumns
from aurum.ingestion.cassandra.schema import BLOCK, PERIOD_US, machine_hash, merged_source, slot_bucket
from aurum.ingestion.cassandra.session import CassandraSession
from aurum.ingestion.series_index import SeriesIndex
from aurum.readings.batch import now_us
from aurum.runtime.errors import UnavailableError
from aurum.runtime.time_units import DAY_US
from aurum.storage import sequence_ranges
from aurum.storage.block_unpacking import CorruptBlockError
from aurum.storage.packed_readings import PackedReadings
from aurum.storage.segment import pack

FAN_IN = 16  # merges of a level that are merged into the next one
LONG = 1024  # readings of a series in one merge, which become a segment
_DAYS = 200_000  # days of series that are remembered as being in the tables
_BATCHES = 32  # that are read at once
_BLOCKS = 16  # that are read at once
_AT_ONCE = 750_000  # readings that are merged at once


@dataclass(slots=True)
class Merged:
    """What a merge did.

    Attributes:
        batches: The batches that were merged.
        blocks: The blocks that were merged.
        places: The groups and periods that got a block.
        groups: The groups whose summaries got a row.
        days: The days of series that got a segment; one entry for each segment.
    """

    batches: list[BatchKey] = field(default_factory=list)
    blocks: int = 0
    places: list[Place] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    days: list[Day] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class HeldBatches:
    """Batches of a slot in memory. The columns have at least the readings of the batches with these keys."""

    keys: frozenset[BatchKey]
    columns: ReadingColumns


class Merger:
    """Merges slots and blocks. Its methods block and are for one thread."""

    def __init__(self, session: CassandraSession, series: SeriesIndex, ttl: int) -> None:
        """Creates a merger.

        Args:
            session: The session.
            series: The numbers of the series.
            ttl: The seconds that readings are kept; 0 for ever.
        """
        self._session = session
        self._series = series
        self._ttl = ttl
        self._periods = Periods(session)
        self._stopping = False
        self._days: dict[Day, None] = {}  # days of series that are known to be in the tables

    def stop(self) -> None:
        """Lets the merge in progress end with an error. May be called by any thread."""
        self._stopping = True

    def merge_slot(self, slot: int, held: HeldBatches | None = None) -> Merged:
        """Moves the readings of a slot into blocks and segments.

        Args:
            slot: The slot.
            held: Batches of the slot that are in memory, so that they need not be read.

        Raises:
            UnavailableError: If Cassandra does not answer.
        """
        merged = Merged()
        waiting = sorted(list_batches(self._session, [slot])[slot])
        while waiting:
            if held is not None and held.columns.count <= _AT_ONCE and held.keys.issuperset(waiting):
                columns, keys, waiting = held.columns, waiting, []
            else:
                columns, keys, waiting = self._load_batches(slot, waiting)
            if not keys:
                continue
            self._write(columns.packed(self._series, consecutive=True), 0, merged)
            # Recorded after the readings are durable, and before the batches are deleted
            self._session.write_all(("add_received", row) for row in _received_rows(keys))
            self._delete_batches(slot, keys)
            merged.batches += keys
        return merged

    def merge_blocks(self, place: Place) -> Merged:
        """Merges the blocks of a period, level by level, where there are enough of a level.

        Raises:
            UnavailableError: If Cassandra does not answer.
        """
        merged = Merged()
        by_level: dict[int, list[BlockKey]] = {}
        for key in list_blocks(self._session, [place]):
            by_level.setdefault(key.level, []).append(key)
        for level, keys in sorted(by_level.items()):
            if len({key.id for key in keys}) >= FAN_IN:
                self._merge(place, keys, level + 1, merged)
        return merged

    def finish_period(self, place: Place) -> Merged:
        """Moves all readings of a period that is over into segments, and removes its registration.

        Raises:
            UnavailableError: If Cassandra does not answer.
        """
        merged = Merged()
        keys = list_blocks(self._session, [place])
        if keys:
            self._merge(place, keys, -1, merged)
        else:
            self._periods.remove(place, now_us())
        return merged

    def _load_batches(
        self, slot: int, waiting: list[BatchKey]
    ) -> tuple[ReadingColumns, list[BatchKey], list[BatchKey]]:
        """Returns the readings of some batches, their keys, and the other batches."""
        columns = ReadingColumns()
        keys: list[BatchKey] = []
        while waiting and columns.count < _AT_ONCE:
            self._check_running()
            some, waiting = waiting[:_BATCHES], waiting[_BATCHES:]
            for stored in load_batches(self._session, slot, some)[0]:
                columns.add_batch(self._series, stored.batch, stored.rank)
                keys.append((stored.batch.source_id, stored.batch.sequence))
        return columns, keys, waiting

    def _merge(self, place: Place, keys: Sequence[BlockKey], level: int, merged: Merged) -> None:
        """Merges blocks of one period into blocks of a level, or into segments if the level is negative.

        More readings than fit into memory are merged by machine, in several passes.
        """
        passes = max(1, -(-sum(key.count for key in keys) // _AT_ONCE))
        damaged: set[BlockKey] = set()
        for number in range(passes):
            columns = ReadingColumns()
            for readings in self._load_blocks(keys, damaged):
                chosen = self._of_pass(readings, number, passes)
                if chosen is not None:
                    columns.add(chosen.numbers, chosen.lengths, chosen.timestamps, chosen.values, chosen.ranks)
            self._write(columns.packed(self._series), level, merged)
        rest = [key for key in keys if key not in damaged]
        self._session.write_all(("drop_block", key.row) for key in rest)
        merged.blocks += len(rest)

    def _load_blocks(self, keys: Sequence[BlockKey], damaged: set[BlockKey]) -> Iterator[PackedReadings]:
        """Yields the readings of blocks. Those that another replica has merged meanwhile have none."""
        for start in range(0, len(keys), _BLOCKS):
            self._check_running()
            some = keys[start : start + _BLOCKS]
            found = self._session.rows_for_each("block", [key.row for key in some])
            for key, rows in zip(some, found, strict=True):
                for row in rows:
                    try:
                        parts = list(read_all(row, self._series))
                    except CorruptBlockError as error:
                        damaged.add(key)
                        report_damage(key, error)
                    else:
                        yield from parts

    def _of_pass(self, readings: PackedReadings, number: int, passes: int) -> PackedReadings | None:
        """Returns the readings of the machines of one pass."""
        if passes == 1:
            return readings
        hashes = [machine_hash(self._series.key_of(each)[0]) // 2**16 % passes for each in readings.numbers.tolist()]
        chosen = np.array(hashes) == number
        return readings.of_series(chosen) if chosen.any() else None

    def _write(self, groups: Sequence[tuple[int, PackedReadings]], level: int, merged: Merged) -> None:
        """Writes the readings of groups: long series as segments, the others as blocks of a level.

        With a negative level, all of them become segments. With level 0, their summaries are written too.
        """
        before = len(merged.days)
        places = {
            (group, period)
            for group, readings in groups
            for period in np.unique(readings.timestamps // PERIOD_US).tolist()
        }
        # Registered first, so that queries find the blocks
        new = self._periods.missing(places) if level >= 0 else []
        self._session.write_all(("add_period", place) for place in new)
        self._periods.record(new)
        self._session.write_all(row for group in groups for row in self._rows(*group, level, merged))
        self._register_days(merged.days[before:])

    def _rows(
        self, group: int, readings: PackedReadings, level: int, merged: Merged
    ) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """Yields what is to be written for a group, as statements with parameters."""
        self._check_running()
        block_id = new_id()
        names = Names.of(self._series, readings.numbers)
        if level == 0:
            yield "add_summary", (group, block_id, summaries.encode(names, summaries.of_readings(readings)))
            merged.groups.append(group)
        long = readings.lengths >= (1 if level < 0 else LONG)
        if long.any():
            for row in self._segment_rows(readings.of_series(long), block_id):
                merged.days.append((row[0], row[1], row[2]))
                yield "add_segment", row
            if long.all():
                return
            readings = readings.of_series(~long)
            names = Names.of(self._series, readings.numbers)
        for period, part in by_period(readings):
            some = names if part is readings else Names.of(self._series, part.numbers)
            for row in rows_of((group, period), level, block_id, part, some, self._ttl):
                yield "add_block", row
            merged.places.append((group, period))

    def _segment_rows(self, readings: PackedReadings, block_id: str) -> Iterator[tuple[Any, ...]]:
        """Yields a row for each series and day."""
        for day, part in readings.by_day():
            end = 0
            for number, length in zip(part.numbers.tolist(), part.lengths.tolist(), strict=True):
                start, end = end, end + length
                timestamps, values = part.timestamps[start:end], part.values[start:end]
                ranks = part.ranks.between(start, end)
                order, source, sequence = ranks.highest
                key = (*self._series.key_of(number), day, int(timestamps[0]), order)
                data = pack(timestamps, values, ranks)
                stated = merged_source(source, [(block_id,)])
                yield (*key, stated, sequence, int(timestamps[-1]), length, data, self._ttl)

    def _register_days(self, days: Iterable[Day]) -> None:
        new = [day for day in dict.fromkeys(days) if day not in self._days]
        # One day longer than the readings, because those at the end of the day expire later
        ttl = self._ttl + DAY_US // 1_000_000 if self._ttl else 0
        self._session.write_all(("add_day", (*day, ttl)) for day in new)
        if len(self._days) + len(new) > _DAYS:
            self._days.clear()
        self._days.update(dict.fromkeys(new))

    def _check_running(self) -> None:
        if self._stopping:
            raise UnavailableError("the store is closing; what was being merged is merged after the next start")

    def _delete_batches(self, slot: int, keys: Sequence[BatchKey]) -> None:
        by_bucket: dict[int, list[tuple[Any, ...]]] = {}
        for key in keys:
            bucket = slot_bucket(key[0])
            by_bucket.setdefault(bucket, []).append((slot, bucket, *key))
        for rows in by_bucket.values():
            self._session.write_partition("drop_batch", rows)


def _received_rows(keys: Sequence[BatchKey]) -> Iterator[tuple[Any, ...]]:
    """Yields the ranges of sequences of batches, within the blocks of their sources."""
    ranges: dict[tuple[str, int], list[sequence_ranges.Range]] = {}
    for source, sequence in keys:
        sequence_ranges.record(ranges.setdefault((source, sequence // BLOCK), []), sequence)
    for place, found in ranges.items():
        for first, last in found:
            yield (*place, first, last)
