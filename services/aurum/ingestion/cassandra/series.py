"""Queries of one series in Cassandra. They block, so they must run on threads.

Readings move from open slots into blocks, and from blocks into segments. A query looks for them in this order, so it
finds each of them at least once.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from aurum.ingestion.cassandra.batch_rows import may_have
from aurum.ingestion.cassandra.block_cache import BlockCache
from aurum.ingestion.cassandra.blocks import blocks_of_machine, read_series, report_damage
from aurum.ingestion.cassandra.follower import load_batches
from aurum.ingestion.cassandra.open_slots import OpenSlot
from aurum.ingestion.cassandra.reading_columns import ReadingColumns
from aurum.ingestion.cassandra.schema import PERIOD_US, SLOT_BUCKETS, group_of, source_of
from aurum.ingestion.cassandra.session import CassandraSession
from aurum.ingestion.series_index import SeriesIndex
from aurum.ingestion.series_reader import Piece
from aurum.readings.batch import SeriesKey
from aurum.runtime import damage
from aurum.runtime.time_units import DAY_US
from aurum.storage.block_unpacking import CorruptBlockError
from aurum.storage.ranks import Ranked
from aurum.storage.segment import CorruptSegmentError, Segment, unpack_ranked

_FEW = 8  # segments of a day; fewer are read one by one, concurrently
_BLOCKS_AT_ONCE = 16  # blocks or batches
_LAST_PERIOD = 2**31 - 1


class SegmentsChangedError(Exception):
    """A segment was merged away between listing and reading. A retry of the query succeeds."""


@dataclass(frozen=True, slots=True)
class CassandraSeries:
    """The segments of a series, as a SegmentSource.

    The place of a piece is the key of its row. `damaged` has the places of unreadable segments.
    """

    session: CassandraSession
    machine_id: str
    sensor: str
    damaged: set[Any] = field(default_factory=set)

    def days(self) -> list[int]:
        """Returns the days since the epoch on which there are readings."""
        return sorted(row.day for row in self.session.rows("days", (self.machine_id, self.sensor)))

    def pieces(self, start_us: int, end_us: int) -> list[Piece]:
        """Returns the segments that overlap [start_us, end_us)."""
        days = [day for day in self.days() if start_us // DAY_US <= day <= (end_us - 1) // DAY_US]
        pieces: list[Piece] = []
        keys = self.session.rows_for_each("segment_keys", [(self.machine_id, self.sensor, day) for day in days])
        for day, rows in zip(days, keys, strict=True):
            for row in rows:
                if row.start_us < end_us and row.end_us >= start_us:
                    key = (self.machine_id, self.sensor, day, row.start_us, row.source_us, row.source, row.sequence)
                    rank = (row.source_us, source_of(row.source), row.sequence)
                    pieces.append(Piece(rank, row.start_us, row.end_us, row.count, key))
        return pieces

    def newest_before(self, before_us: int) -> int | None:
        """Returns the start of the newest segment that begins before `before_us`, or None."""
        for day in reversed(self.days()):
            if day * DAY_US >= before_us:
                continue
            key = (self.machine_id, self.sensor, day, before_us)
            for row in self.session.rows("newest_start", key):
                return int(row.start_us)
        return None

    def load(self, pieces: Sequence[Piece]) -> list[Segment]:
        """Returns the segments of the pieces. Raises SegmentsChangedError if one no longer exists."""
        data_by_place: dict[Any, bytes] = {}
        alone: list[Piece] = []
        for day, group in itertools.groupby(sorted(pieces, key=_day_of), key=_day_of):
            together = list(group)
            if len(together) < _FEW:
                alone += together
            else:
                data_by_place |= self._between(day, together)
        for piece, rows in zip(
            alone, self.session.rows_for_each("segment", [piece.place for piece in alone]), strict=True
        ):
            if rows:
                data_by_place[piece.place] = rows[0].data
        if any(piece.place not in data_by_place for piece in pieces):
            raise SegmentsChangedError
        return [self._unpacked(piece, data_by_place[piece.place]) for piece in pieces]

    def _unpacked(self, piece: Piece, data: bytes) -> Segment:
        try:
            return unpack_ranked(data)
        except CorruptSegmentError as error:
            self.damaged.add(piece.place)
            name = "/".join(map(str, piece.place))
            damage.report("segment", name, str(error), "it stays where it is, and its readings are in no answer")
            return Segment(np.empty(0, np.int64), np.empty(0, np.float64), None)

    def _between(self, day: int, pieces: Sequence[Piece]) -> dict[Any, bytes]:
        """Reads the pieces of one day with one statement, which costs less than a statement for each of many."""
        wanted = {piece.place for piece in pieces}
        starts = [piece.start_us for piece in pieces]
        data_by_place = {}
        day_of_series = (self.machine_id, self.sensor, day)
        for row in self.session.rows("segments_between", (*day_of_series, min(starts), max(starts))):
            place = (*day_of_series, row.start_us, row.source_us, row.source, row.sequence)
            if place in wanted:
                data_by_place[place] = row.data
        return data_by_place


def _day_of(piece: Piece) -> int:
    return int(piece.place[2])


class StoredSeries:
    """All readings of a series, as a SegmentSource: those of open slots, of blocks and of segments.

    Readings that have been read already are the place of their piece.
    """

    def __init__(
        self,
        segments: CassandraSeries,
        cache: BlockCache,
        open_readings: Iterable[Ranked] = (),
    ) -> None:
        """Creates a source for one query.

        Args:
            segments: The segments of the series.
            cache: The blocks that were read last.
            open_readings: The readings in open slots. They were found before this source is used.
        """
        self.segments = segments
        self._cache = cache
        self._open = [piece for readings in open_readings for piece in _by_day(readings)]
        self._periods: list[int] | None = None

    def pieces(self, start_us: int, end_us: int) -> list[Piece]:
        """Returns the pieces that overlap [start_us, end_us). Raises SegmentsChangedError."""
        found = [piece for piece in self._open if piece.start_us < end_us and piece.end_us >= start_us]
        found += self._of_blocks(start_us, end_us)
        return found + self.segments.pieces(start_us, end_us)

    def newest_before(self, before_us: int) -> int | None:
        """Returns a time before `before_us`, on the day of the newest reading before it or later. None without any."""
        times = [min(piece.end_us, before_us - 1) for piece in self._open if piece.start_us < before_us]
        for period in reversed(self._registered_periods()):
            if period * PERIOD_US < before_us:
                keys = blocks_of_machine(self.segments.session, self.segments.machine_id, 0, before_us, [period])
                if keys:
                    times.append(min(max(key.end_us for key in keys), before_us - 1))
                    break
        if (newest := self.segments.newest_before(before_us)) is not None:
            times.append(newest)
        return max(times, default=None)

    def load(self, pieces: Sequence[Piece]) -> list[Segment]:
        """Returns the readings of the pieces. Raises SegmentsChangedError if a segment no longer exists."""
        loaded = iter(self.segments.load([piece for piece in pieces if not isinstance(piece.place, Segment)]))
        return [piece.place if isinstance(piece.place, Segment) else next(loaded) for piece in pieces]

    def _of_blocks(self, start_us: int, end_us: int) -> list[Piece]:
        first, last = start_us // PERIOD_US, (end_us - 1) // PERIOD_US
        periods = [period for period in self._registered_periods() if first <= period <= last]
        machine_id, sensor = self.segments.machine_id, self.segments.sensor
        keys = blocks_of_machine(self.segments.session, machine_id, start_us, end_us, periods)
        found: list[Piece] = []
        for start in range(0, len(keys), _BLOCKS_AT_ONCE):
            some = keys[start : start + _BLOCKS_AT_ONCE]
            for key, row in zip(some, self._cache.load(some), strict=True):
                if row is None:
                    raise SegmentsChangedError
                try:
                    readings = read_series(row, (machine_id, sensor))
                except CorruptBlockError as error:
                    self.segments.damaged.add(key)
                    report_damage(key, error)
                    continue
                if readings is not None:
                    found += _by_day(readings)
        return [piece for piece in found if piece.start_us < end_us and piece.end_us >= start_us]

    def _registered_periods(self) -> list[int]:
        """Returns the periods that may have blocks of the machine.

        Listed once per query: blocks that are written later have readings that were in open slots at its start.
        """
        if self._periods is None:
            rows = self.segments.session.rows("periods", (group_of(self.segments.machine_id), 0, _LAST_PERIOD))
            self._periods = sorted(row.period for row in rows)
        return self._periods


def read_unheld(
    session: CassandraSession, series: SeriesIndex, slots: Sequence[OpenSlot], key: SeriesKey
) -> ReadingColumns:
    """Returns the readings of one series in slots whose readings are not in memory. Blocks.

    Args:
        session: The session.
        series: The numbers of the series.
        slots: The slots.
        key: The series.

    Raises:
        UnavailableError: If Cassandra does not answer.
    """
    columns = ReadingColumns()
    for slot in slots:
        places = [(slot.number, bucket) for bucket in range(SLOT_BUCKETS)]
        keys = [
            (row.source, row.sequence)
            for rows in session.rows_for_each("batch_members", places)
            for row in rows
            if may_have(row.machines, key[0])
        ]
        for start in range(0, len(keys), _BLOCKS_AT_ONCE):
            for stored in load_batches(session, slot.number, keys[start : start + _BLOCKS_AT_ONCE])[0]:
                columns.add_batch(series, stored.batch, stored.rank, only=key)
    return columns


def _by_day(readings: Ranked) -> Iterable[Piece]:
    """Yields the readings of each UTC day as a piece that has been read."""
    timestamps, values, ranks = readings
    days = timestamps // DAY_US
    cuts = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), len(values)]
    for start, end in itertools.pairwise(cuts):
        some = ranks.between(start, end)
        part = Segment(timestamps[start:end], values[start:end], some)
        yield Piece(some.highest, int(timestamps[start]), int(timestamps[end - 1]), end - start, part)
