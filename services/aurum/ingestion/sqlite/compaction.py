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
_LARGE = 100_000  # readings; and one with as many no further at all
_MOST_AT_ONCE = 200_000  # readings of a merged segment, about, so that a step takes some tens of milliseconds
_FAN_IN = 16
_GROWN = 4  # a day in which nothing could be merged is looked at again when it has a fourth more segments
_SETTLED_US = 3_600_000_000  # a day is over so long after its end
_REMEMBERED = 1_000_000  # days of series that were written to; with more, all are looked through
_EXPIRED_AT_ONCE = 200  # segments
_VACUUMED_AT_ONCE = 200  # pages
Place = tuple[int, int]  # series, day


class _ChangedError(Exception):
    """What was to be merged has changed meanwhile, and is looked at again."""


@dataclass(slots=True)
class Compactor:
    """Knows where there may be something to merge. For one thread, which shares the tables with the one that writes
    readings: it works on what it has read, and holds the tables' lock only to replace segments by their merged one."""

    _added: Touched = field(default_factory=dict)
    _due: dict[Place, None] = field(default_factory=dict)
    _fruitless: dict[Place, int] = field(default_factory=dict)  # segments of days in which nothing could be merged
    merged_segments: int = 0

    def note(self, touched: Touched) -> None:
        """Takes note of segments that were written."""
        for place, count in touched.items():
            self._added[place] = self._added.get(place, 0) + count
            if self._added[place] >= max(_FAN_IN, self._fruitless.get(place, 0) // _GROWN):
                del self._added[place]
                self._due[place] = None
        if len(self._added) > _REMEMBERED:
            self._added.clear()

    def look_through(self, connection: sqlite3.Connection, now_us: int) -> None:
        """Finds everything that there is to merge: at the start, and now and then for days that are over."""
        self._fruitless.clear()
        rows = connection.execute(
            "SELECT series, start_us / ?1 AS day, count(*), sum(count < ?2), sum(count), max(count) "
            "FROM segments WHERE count < ?3 GROUP BY series, day HAVING count(*) > 1",
            (DAY_US, SMALL, _LARGE),
        )
        for series, day, segments, small, readings, largest in rows:
            over = _is_over(day, now_us)
            rest = readings - largest
            if small >= _FAN_IN or (over and (rest * 4 >= largest or segments >= _FAN_IN)):
                self._due[series, day] = None

    @property
    def due(self) -> int:
        """Days of series that wait to be merged."""
        return len(self._due)

    def step(self, connection: sqlite3.Connection, now_us: int) -> None:
        """Merges some of one day of one series. Raises sqlite3.Error, and then nothing has changed."""
        if not self._due:
            return
        place = next(iter(self._due))
        del self._due[place]  # first, so that one that cannot be merged does not hold up the others
        there = _segments_of(connection, place)
        over = _is_over(place[1], now_us)
        picked = [piece for piece in there if piece.count < (_LARGE if over else SMALL)]
        merged = 0
        for run in _parts(picked) if over else _runs(connection, picked):
            ids = {piece.place for piece in run}
            pieces = with_overlapped(run, [piece for piece in there if piece.place not in ids])
            if len(pieces) < 2 or sum(piece.count for piece in pieces) > 2 * _MOST_AT_ONCE:
                continue
            try:
                _merge(connection, place, pieces, newest=max(piece.place for piece in there))
            except _ChangedError:
                self._due[place] = None
                return
            merged += len(pieces)
            if over:
                self._due[place] = None  # the rest in another step
                break
        self.merged_segments += merged
        if merged:
            self._fruitless.pop(place, None)
        else:
            self._fruitless[place] = len(there)


def _is_over(day: int, now_us: int) -> bool:
    return now_us > (day + 1) * DAY_US + _SETTLED_US


def _segments_of(connection: sqlite3.Connection, place: Place) -> list[Piece]:
    series, day = place
    rows = connection.execute(
        "SELECT source, sequence, start_us, end_us, count, id FROM segments "
        "WHERE series = ? AND start_us >= ? AND start_us < ?",
        (series, day * DAY_US, (day + 1) * DAY_US),
    )
    return [Piece(row[:2], *row[2:]) for row in rows]


def _parts(pieces: list[Piece]) -> list[list[Piece]]:
    """Pieces of a day that is over, in the order of time, in parts of about as many readings as are merged at once."""
    parts: list[list[Piece]] = [[]]
    count = 0
    for piece in sorted(pieces, key=lambda piece: piece.start_us):
        if parts[-1] and count + piece.count > _MOST_AT_ONCE:
            parts.append([])
            count = 0
        parts[-1].append(piece)
        count += piece.count
    return [part for part in parts if len(part) > 1]


def _runs(connection: sqlite3.Connection, pieces: list[Piece]) -> list[list[Piece]]:
    """The pieces by source, and by what came of it without a gap: into a gap something may come that stands, by its
    rank, between pieces that would be one by then."""
    runs: dict[tuple[int, int], list[Piece]] = {}
    for piece in pieces:
        first = connection.execute(
            "SELECT max(first) FROM received WHERE source = ? AND first <= ?", piece.rank
        ).fetchone()[0]
        runs.setdefault((piece.rank[0], first or 0), []).append(piece)
    return [part for run in runs.values() for part in _parts(run)]


def _merge(connection: sqlite3.Connection, place: Place, pieces: list[Piece], newest: int) -> None:
    """newest: id of the last segment that was there when the pieces were picked. Raises _ChangedError."""
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
    series, _ = place
    with transaction(connection):
        added = [piece for piece in _segments_of(connection, place) if piece.place > newest]
        if connection.executemany("DELETE FROM segments WHERE id = ?", ids).rowcount != len(ids):
            raise _ChangedError
        if len(with_overlapped(pieces, added)) > len(pieces):  # what came meanwhile stands between them
            raise _ChangedError
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
        connection.execute(f"PRAGMA incremental_vacuum({_VACUUMED_AT_ONCE})")
    return sum(row[1] for row in rows)
