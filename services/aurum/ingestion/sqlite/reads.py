"""Questions to the store: its tables, and what is in the log and not yet in them."""

import math
import sqlite3
from dataclasses import dataclass

import numpy as np

from aurum.ingestion.downsample import Reducer, merge
from aurum.ingestion.recent import Part, SeriesKey
from aurum.ingestion.store import DAY_US, MAX_RAW, Event, MachineRecord, Points, SeriesSummary
from aurum.readings.batch import Timestamps, Values
from aurum.runtime.errors import InvalidArgumentError
from aurum.storage.segment import unpack


@dataclass(frozen=True, slots=True)
class Range:
    """What is asked of one series: [start_us, end_us). recent: its readings that may not be in the tables yet."""

    key: SeriesKey
    start_us: int
    end_us: int
    recent: list[Part]


@dataclass(frozen=True, slots=True)
class _Piece:
    """A segment that was not read yet, or a recent part. count: its readings, more than in the range perhaps."""

    rank: tuple[int, int]
    start_us: int
    end_us: int
    count: int
    source: "int | Part"  # the segment's id, or the part

    def load(self, connection: sqlite3.Connection) -> tuple[Timestamps, Values]:
        if isinstance(self.source, Part):
            return self.source.timestamps, self.source.values
        row = connection.execute("SELECT data FROM segments WHERE id = ?", (self.source,)).fetchone()
        return unpack(row[0])


def read_range(connection: sqlite3.Connection, asked: Range, points: int) -> Points:
    """All readings, or as many points. For one transaction of the reader."""
    pieces = _pieces(connection, asked, asked.start_us, asked.end_us)
    total = sum(piece.count for piece in pieces)
    if not points and total > MAX_RAW:
        raise InvalidArgumentError.of(
            "points", f"the range has {total} readings; ask for at most {MAX_RAW}, or reduce them with points"
        )
    if not points or total <= points:
        timestamps, values = _merged(connection, pieces, asked)
        return Points(timestamps, values)
    reducer = Reducer(asked.start_us, asked.end_us, points)
    days: dict[int, list[_Piece]] = {}
    for piece in pieces:  # day by day, to hold no more in memory
        for day in range(piece.start_us // DAY_US, piece.end_us // DAY_US + 1):
            days.setdefault(day, []).append(piece)
    for day in sorted(days):
        low, high = max(asked.start_us, day * DAY_US), min(asked.end_us, (day + 1) * DAY_US)
        reducer.add(*_merged(connection, days[day], Range(asked.key, low, high, [])))
    return reducer.result()


def read_all(connection: sqlite3.Connection, asked: Range) -> tuple[Timestamps, Values]:
    """All readings, however many."""
    return _merged(connection, _pieces(connection, asked, asked.start_us, asked.end_us), asked)


def read_last(connection: sqlite3.Connection, asked: Range, last: int) -> tuple[Timestamps, Values]:
    """The last so many readings in the range, read backwards day by day."""
    found: list[tuple[Timestamps, Values]] = []
    count = 0
    before = asked.end_us
    while count < last and before > asked.start_us:
        newest = _newest_before(connection, asked, before)
        if newest is None or newest < _day_start(asked.start_us):
            break
        low = max(asked.start_us, _day_start(newest))
        part = _last_of_day(connection, Range(asked.key, low, before, asked.recent), last - count)
        found.insert(0, part)
        count += len(part[0])
        before = low
    timestamps, values = merge(found)
    return timestamps[-last:], values[-last:]


def read_machines(connection: sqlite3.Connection) -> list[MachineRecord]:
    return [MachineRecord(*row) for row in connection.execute("SELECT * FROM machines ORDER BY machine_id")]


def read_summaries(connection: sqlite3.Connection) -> list[SeriesSummary]:
    rows = connection.execute("SELECT machine_id, sensor, first_us, last_us, last_value FROM series")
    return [
        SeriesSummary(machine_id, sensor, first, last, math.nan if value is None else value)
        for machine_id, sensor, first, last, value in rows
    ]


def read_events(  # noqa: PLR0917
    connection: sqlite3.Connection, kind: str, machine_id: str, start_us: int, end_us: int, limit: int
) -> list[Event]:
    """The newest events in the range, newest first."""
    rows = connection.execute(
        "SELECT kind, machine_id, at_us, id, data FROM events WHERE kind = ? AND machine_id = ? "
        "AND at_us >= ? AND at_us < ? ORDER BY at_us DESC, id DESC LIMIT ?",
        (kind, machine_id, start_us, end_us, limit),
    )
    return [Event(*row) for row in rows]


def _pieces(connection: sqlite3.Connection, asked: Range, start_us: int, end_us: int) -> list[_Piece]:
    """Everything that may have readings in a range. A segment lies within one day, so its start finds it."""
    rows = connection.execute(
        "SELECT segments.id, start_us, source, sequence, end_us, count FROM segments "
        "JOIN series ON series.id = segments.series WHERE machine_id = ? AND sensor = ? "
        "AND start_us >= ? AND start_us < ? AND end_us >= ?",
        (*asked.key, _day_start(start_us), end_us, start_us),
    )
    pieces = [_Piece((row[2], row[3]), row[1], row[4], row[5], row[0]) for row in rows]
    for part in asked.recent:
        low, high = int(part.timestamps.min()), int(part.timestamps.max())
        if low < end_us and high >= start_us:
            pieces.append(_Piece(part.rank, low, high, len(part.values), part))
    return pieces


def _merged(connection: sqlite3.Connection, pieces: list[_Piece], asked: Range) -> tuple[Timestamps, Values]:
    """The readings of pieces in any order, cut to the range."""
    timestamps, values = merge(
        [piece.load(connection) for piece in sorted(pieces, key=lambda piece: (piece.rank, piece.start_us))]
    )
    low, high = np.searchsorted(timestamps, [asked.start_us, asked.end_us])
    return timestamps[low:high], values[low:high]


def _newest_before(connection: sqlite3.Connection, asked: Range, before: int) -> int | None:
    """A time before which, and not long before, there is a reading; None if there is none."""
    newest: int | None = connection.execute(
        "SELECT max(start_us) FROM segments JOIN series ON series.id = segments.series "
        "WHERE machine_id = ? AND sensor = ? AND start_us < ?",
        (*asked.key, before),
    ).fetchone()[0]
    for part in asked.recent:
        earlier = part.timestamps[part.timestamps < before]
        if len(earlier):
            newest = max(newest or 0, int(earlier.max()))
    return newest


def _last_of_day(connection: sqlite3.Connection, asked: Range, last: int) -> tuple[Timestamps, Values]:
    """At least the last so many readings of a range within one day, if there are as many."""
    waiting = _pieces(connection, asked, asked.start_us, asked.end_us)
    waiting.sort(key=lambda piece: piece.end_us)
    taken: list[_Piece] = []
    gathered = 0
    while True:
        while waiting and gathered < last:
            piece = waiting.pop()
            taken.append(piece)
            gathered += piece.count
        timestamps, values = _merged(connection, taken, asked)
        # What was left out has no reading after the end of the last of it.
        if not waiting or len(timestamps) - np.searchsorted(timestamps, waiting[-1].end_us, side="right") >= last:
            return timestamps, values
        gathered = last - 1  # one more at least


def _day_start(at_us: int) -> int:
    return at_us // DAY_US * DAY_US
