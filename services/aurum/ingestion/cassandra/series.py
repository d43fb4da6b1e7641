"""Queries of the segments of one series in Cassandra. They block, so they must run on threads."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from aurum.ingestion.cassandra.session import CassandraSession
from aurum.ingestion.series_reader import Piece
from aurum.runtime import damage
from aurum.runtime.time_units import DAY_US
from aurum.storage.segment import CorruptSegmentError, Segment, unpack_ranked

_FEW = 8  # segments of a day; fewer are read one by one, concurrently


class SegmentsChangedError(Exception):
    """A segment was merged away between listing and reading. A retry of the query succeeds."""


@dataclass(frozen=True, slots=True)
class CassandraSeries:
    """A SegmentSource. The place of a piece is the key of its row. `damaged` has the places of unreadable segments."""

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
                    rank = (row.source_us, row.source, row.sequence)
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
