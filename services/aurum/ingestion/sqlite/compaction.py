"""Merging of small segments and removal of old ones, in small steps beside the ingestion of readings.

A series with many readings gets new segments with each flush, and more for a day when readings arrive late. The small
segments of a day are merged as soon as there are _FAN_IN of them, so that a reading is rewritten only a few times.
After the end of a day, the remaining small segments are merged if they are a sufficient part of it. The readings of
other series are in blocks, which are merged before (see aurum.ingestion.sqlite.block_merging).

Of readings at the same time, the one with the highest rank is kept. Each reading keeps its rank, so that late
readings are still ordered correctly. Batches of a source without a gap share one rank.
"""

import contextlib
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field

from aurum.ingestion.series_reader import Piece, with_ranks
from aurum.ingestion.sqlite.block_merging import BlockMerger, is_over
from aurum.ingestion.sqlite.blocks import BlockReader, DamagedPart
from aurum.ingestion.sqlite.packing import Added, SeriesDay
from aurum.ingestion.sqlite.quarantine import set_apart
from aurum.ingestion.sqlite.received import one_state, received_in
from aurum.ingestion.store import SMALL
from aurum.runtime.time_units import DAY_US
from aurum.storage.block import BLOCK_SERIES
from aurum.storage.database import transaction
from aurum.storage.ranks import Ranked, Ranks, collapse, merge_ranked, sequence_spans
from aurum.storage.segment import CorruptSegmentError, pack, unpack_ranked, unpack_ranks

_LARGE = 100_000  # readings; a segment of this size is not merged further at all
_MOST_AT_ONCE = 200_000  # readings in a merged segment, approximately, so that a step takes some tens of milliseconds
_FAN_IN = 16
_GROWN = 4  # divisor; a day without anything to merge is checked again after a quarter more segments
_REMEMBERED = 1_000_000  # days of series; with more, the list is cleared and the next look_through finds them
_EXPIRED_AT_ONCE = 200  # segments
_VACUUMED_AT_ONCE = 200  # pages
_EXPIRED_BLOCKS_AT_ONCE = 20  # blocks, which are larger


class _ChangedError(Exception):
    """The segments to be merged have changed meanwhile. The day is checked again."""


@dataclass(slots=True)
class Compactor:
    """Finds segments to merge, and merges them in steps.

    For one thread, which shares the tables with the thread that flushes. It works on what it has read, and locks the
    tables only to replace segments by their merged one.
    """

    _blocks: BlockMerger = field(default_factory=BlockMerger)
    _added: dict[SeriesDay, int] = field(default_factory=dict)
    _due: dict[SeriesDay, None] = field(default_factory=dict)
    _fruitless: dict[SeriesDay, int] = field(default_factory=dict)  # segments of days without anything to merge
    merged_segments: int = 0

    def record_added(self, added: Added) -> None:
        """Records the segments and blocks that were written."""
        self._blocks.record_added(added.blocks)
        self._record_segments(added.segments)

    def _record_segments(self, segments: Mapping[SeriesDay, int]) -> None:
        for place, count in segments.items():
            self._added[place] = self._added.get(place, 0) + count
            if self._added[place] >= max(_FAN_IN, self._fruitless.get(place, 0) // _GROWN):
                del self._added[place]
                self._due[place] = None
        if len(self._added) > _REMEMBERED:
            self._added.clear()

    def find_due(self, connection: sqlite3.Connection, now_us: int) -> None:
        """Finds everything that can be merged. Runs at the start, and regularly for days that are over."""
        self._blocks.find_due(connection, now_us)
        self._fruitless.clear()
        rows = connection.execute(
            "SELECT series, start_us / ?1 AS day, count(*), sum(count < ?2), sum(count), max(count) "
            "FROM segments WHERE count < ?3 GROUP BY series, day HAVING count(*) > 1",
            (DAY_US, SMALL, _LARGE),
        )
        for series, day, segments, small, readings, largest in rows:
            over = is_over(day, now_us)
            rest = readings - largest
            if small >= _FAN_IN or (over and (rest * 4 >= largest or segments >= _FAN_IN)):
                self._due[series, day] = None

    @property
    def due(self) -> int:
        """The number of days of series, and of buckets of series, that wait to be merged."""
        return len(self._due) + self._blocks.due

    @property
    def merged_blocks(self) -> int:
        """The number of blocks that were merged."""
        return self._blocks.merged_blocks

    def merge_next(self, connection: sqlite3.Connection, now_us: int) -> None:
        """Merges some blocks or segments of one day. Raises sqlite3.Error; nothing has changed then."""
        if self._blocks.due:
            self._record_segments(self._blocks.merge_next(connection, now_us))
            return
        if not self._due:
            return
        place = next(iter(self._due))
        del self._due[place]  # removed first, so that a failing day does not block the others
        with one_state(connection):
            present = _segments_of(connection, place)
            most = _LARGE if is_over(place[1], now_us) else SMALL
            parts = _parts([piece for piece in present if piece.count < most])
            if not parts:
                self._fruitless[place] = len(present)
                return
            parts_read, problems = _read(connection, parts[0])
            merged = None if problems else _merged(connection, place[0], parts_read, parts[0], present)
        self._fruitless.pop(place, None)
        if merged is None:
            set_apart(connection, problems)
        else:
            with contextlib.suppress(_ChangedError):
                _replace(connection, place, parts[0], merged)
                self.merged_segments += len(parts[0])
                if len(parts) == 1:
                    return
        self._due[place] = None  # the rest follows in another step


def _segments_of(connection: sqlite3.Connection, place: SeriesDay) -> list[Piece]:
    series, day = place
    rows = connection.execute(
        "SELECT source, sequence, start_us, end_us, count, id FROM segments "
        "WHERE series = ? AND start_us >= ? AND start_us < ?",
        (series, day * DAY_US, (day + 1) * DAY_US),
    )
    return [Piece(row[:2], *row[2:]) for row in rows]


def _parts(pieces: list[Piece]) -> list[list[Piece]]:
    """Splits pieces in time order into parts of the size that is merged at once.

    Parts of a single piece are left out.
    """
    parts: list[list[Piece]] = [[]]
    count = 0
    for piece in sorted(pieces, key=lambda piece: piece.start_us):
        if parts[-1] and count + piece.count > _MOST_AT_ONCE:
            parts.append([])
            count = 0
        parts[-1].append(piece)
        count += piece.count
    return [part for part in parts if len(part) > 1]


def _read(connection: sqlite3.Connection, pieces: list[Piece]) -> tuple[list[Ranked], dict[DamagedPart, str]]:
    """Returns the readings of each readable segment, and what is wrong with the others."""
    parts: list[Ranked] = []
    problems: dict[DamagedPart, str] = {}
    for piece in pieces:
        try:
            parts.append(with_ranks(piece, unpack_ranked(_data_of(connection, piece))))
        except CorruptSegmentError as error:
            problems[DamagedPart("segment", piece.place)] = str(error)
    return parts, problems


def _merged(
    connection: sqlite3.Connection, series: int, parts: list[Ranked], pieces: list[Piece], present: list[Piece]
) -> Ranked:
    """Merges the readings of the pieces. Each keeps its rank, or gets a higher one that orders it in the same way."""
    timestamps, values, ranks = merge_ranked(parts)
    received = received_in(connection, sequence_spans(ranks).items())
    if not received:
        return timestamps, values, ranks
    merged = {piece.place for piece in pieces}
    start, end = int(timestamps[0]), int(timestamps[-1])
    others: list[Ranks] = []
    for piece in present:
        if piece.place not in merged and piece.start_us <= end and piece.end_us >= start:
            with contextlib.suppress(CorruptSegmentError):  # its readings are in no answer
                others.append(unpack_ranks(_data_of(connection, piece)) or Ranks.uniform(piece.rank, piece.count))
    blocks = BlockReader(connection, {}).overlapping(series, start, end + 1)
    others += [head.ranks_of(head.index_of(series % BLOCK_SERIES)) for _, _, _, head in blocks]
    return timestamps, values, collapse(ranks, received, others)


def _replace(connection: sqlite3.Connection, place: SeriesDay, pieces: list[Piece], merged: Ranked) -> None:
    """Replaces the pieces by one segment. Raises _ChangedError if one of them no longer exists."""
    timestamps, values, ranks = merged
    packed = pack(timestamps, values, ranks)
    ids = [(piece.place,) for piece in pieces]
    with transaction(connection):
        if connection.executemany("DELETE FROM segments WHERE id = ?", ids).rowcount != len(ids):
            raise _ChangedError
        connection.execute(
            "INSERT INTO segments (series, start_us, source, sequence, end_us, count, data) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (place[0], int(timestamps[0]), *ranks.highest, int(timestamps[-1]), len(values), packed),
        )


def _data_of(connection: sqlite3.Connection, piece: Piece) -> bytes:
    data: bytes = connection.execute("SELECT data FROM segments WHERE id = ?", (piece.place,)).fetchone()[0]
    return data


def expire(connection: sqlite3.Connection, before_us: int) -> int:
    """Deletes some segments and blocks whose last reading is before `before_us`, and frees their space.

    Returns how many readings.
    """
    expired = {
        table: connection.execute(
            f"SELECT id, count FROM {table} WHERE end_us < ? LIMIT ?",  # noqa: S608
            (before_us, most),
        ).fetchall()
        for table, most in (("segments", _EXPIRED_AT_ONCE), ("blocks", _EXPIRED_BLOCKS_AT_ONCE))
    }
    if any(expired.values()):
        with transaction(connection):
            for table, rows in expired.items():
                connection.executemany(f"DELETE FROM {table} WHERE id = ?", [(row[0],) for row in rows])  # noqa: S608
            connection.execute("UPDATE series SET first_us = ?1 WHERE first_us < ?1 AND last_us >= ?1", (before_us,))
        connection.execute(f"PRAGMA incremental_vacuum({_VACUUMED_AT_ONCE})")
    return sum(row[1] for rows in expired.values() for row in rows)
