"""Merging of small segments and removal of old ones, step by step, off the way of readings.

A series has segments of each flush, and more of a day when readings come late. Of one day, small ones are merged as
soon as there are _FAN_IN of them, so a reading is rewritten a few times at most; what is left of a day that is over is
merged when it makes up enough of it. A merged segment takes the rank of its newest part; of readings at the same time
the newest part's stays.
"""

import sqlite3
from dataclasses import dataclass, field

from aurum.ingestion.downsample import merge
from aurum.ingestion.series_reader import Piece, with_overlapped
from aurum.ingestion.sqlite.flush import Touched
from aurum.ingestion.sqlite.quarantine import set_apart
from aurum.ingestion.store import DAY_US
from aurum.readings.batch import Timestamps, Values
from aurum.storage.database import transaction
from aurum.storage.segment import CorruptSegmentError, pack, unpack

SMALL = 10_000  # readings; a segment with as many is merged no further while its day goes on
_FAN_IN = 16
_SETTLED_US = 3_600_000_000  # a day is over so long after its end
_REMEMBERED = 1_000_000  # days of series that were written to; with more, all are looked through
_EXPIRED_AT_ONCE = 200  # segments


@dataclass(slots=True)
class Compactor:
    """Knows where there may be something to merge. For the thread that writes the tables."""

    _added: Touched = field(default_factory=dict)
    _due: dict[tuple[int, int], None] = field(default_factory=dict)
    merged_segments: int = 0

    def note(self, touched: Touched) -> None:
        """Takes note of segments that were written."""
        for place, count in touched.items():
            self._added[place] = self._added.get(place, 0) + count
            if self._added[place] >= _FAN_IN:
                del self._added[place]
                self._due[place] = None
        if len(self._added) > _REMEMBERED:
            self._added.clear()

    def look_through(self, connection: sqlite3.Connection, now_us: int) -> None:
        """Finds everything that there is to merge: at the start, and now and then for days that are over."""
        rows = connection.execute(
            "SELECT series, start_us / ?1 AS day, count(*), sum(count < ?2), sum(count), max(count), max(end_us) "
            "FROM segments GROUP BY series, day HAVING count(*) > 1",
            (DAY_US, SMALL),
        )
        for series, day, segments, small, readings, largest, _ in rows:
            over = now_us > (day + 1) * DAY_US + _SETTLED_US
            rest = readings - largest
            if small >= _FAN_IN or (over and (rest * 4 >= largest or segments >= _FAN_IN)):
                self._due[series, day] = None

    @property
    def due(self) -> int:
        """Days of series that wait to be merged."""
        return len(self._due)

    def step(self, connection: sqlite3.Connection, now_us: int) -> None:
        """Merges one day of one series. Raises sqlite3.Error, and then nothing has changed."""
        if not self._due:
            return
        series, day = next(iter(self._due))
        del self._due[series, day]  # first, so that one that cannot be merged does not hold up the others
        over = now_us > (day + 1) * DAY_US + _SETTLED_US
        rows = connection.execute(
            "SELECT source, sequence, start_us, end_us, count, id FROM segments "
            "WHERE series = ? AND start_us >= ? AND start_us < ?",
            (series, day * DAY_US, (day + 1) * DAY_US),
        )
        there = [Piece(row[:2], *row[2:]) for row in rows]
        picked = [piece for piece in there if over or piece.count < SMALL]
        for run in [picked] if over else _runs(connection, picked):
            pieces = with_overlapped(run, [piece for piece in there if piece not in run])
            if len(pieces) > 1:
                _merge(connection, series, pieces)
                self.merged_segments += len(pieces)


def _runs(connection: sqlite3.Connection, pieces: list[Piece]) -> list[list[Piece]]:
    """The pieces by source, and by what came of it without a gap: into a gap something may come that stands, by its
    rank, between pieces that would be one by then."""
    runs: dict[tuple[int, int], list[Piece]] = {}
    for piece in pieces:
        first = connection.execute(
            "SELECT max(first) FROM received WHERE source = ? AND first <= ?", piece.rank
        ).fetchone()[0]
        runs.setdefault((piece.rank[0], first or 0), []).append(piece)
    return list(runs.values())


def _merge(connection: sqlite3.Connection, series: int, pieces: list[Piece]) -> None:
    pieces.sort(key=lambda piece: piece.rank)
    ids = [(piece.place,) for piece in pieces]
    parts, problems = _unpacked(connection, pieces)
    if problems:
        set_apart(connection, problems)
        pieces = [piece for piece in pieces if piece.place not in problems]
        if len(pieces) < 2:
            return
        ids = [(piece.place,) for piece in pieces]
    timestamps, values = merge(parts)
    packed = pack(timestamps, values)
    source, sequence = pieces[-1].rank
    with transaction(connection):
        connection.executemany("DELETE FROM segments WHERE id = ?", ids)
        connection.execute(
            "INSERT INTO segments (series, start_us, source, sequence, end_us, count, data) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (series, int(timestamps[0]), source, sequence, int(timestamps[-1]), len(values), packed),
        )


def _unpacked(
    connection: sqlite3.Connection, pieces: list[Piece]
) -> tuple[list[tuple[Timestamps, Values]], dict[int, str]]:
    """The readings of each segment that can be read, and what is wrong with the others, by id."""
    parts: list[tuple[Timestamps, Values]] = []
    problems: dict[int, str] = {}
    for piece in pieces:
        data = connection.execute("SELECT data FROM segments WHERE id = ?", (piece.place,)).fetchone()[0]
        try:
            parts.append(unpack(data))
        except CorruptSegmentError as error:
            problems[piece.place] = str(error)
    return parts, problems


def expire(connection: sqlite3.Connection, before_us: int) -> int:
    """Removes some segments whose last reading is older, and gives their space back; how many readings went."""
    rows = connection.execute(
        "SELECT id, count FROM segments WHERE end_us < ? LIMIT ?", (before_us, _EXPIRED_AT_ONCE)
    ).fetchall()
    if rows:
        with transaction(connection):
            connection.executemany("DELETE FROM segments WHERE id = ?", [(row[0],) for row in rows])
            connection.execute("UPDATE series SET first_us = ?1 WHERE first_us < ?1 AND last_us >= ?1", (before_us,))
        connection.execute("PRAGMA incremental_vacuum(1000)")
    return sum(row[1] for row in rows)
