"""Packs readings of many series for the tables: into segments and blocks, neither of which spans two UTC days.

A series with many readings on a day gets a segment of its own. The others share blocks.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from aurum.ingestion.sqlite.series_ends import SeriesEnds
from aurum.storage.block import PackedBlock, pack_blocks
from aurum.storage.packed_readings import PackedReadings
from aurum.storage.segment import pack

SEGMENT_READINGS = 256  # readings of a series on a day from which on they are a segment
SeriesDay = tuple[int, int]  # series, day
BlockLevel = tuple[int, int, int]  # bucket, day, level
_INSERT_SEGMENT = (
    "INSERT INTO segments (series, start_us, source, sequence, end_us, count, data) VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_INSERT_BLOCK = "INSERT INTO blocks (bucket, level, start_us, end_us, count, head, data) VALUES (?, ?, ?, ?, ?, ?, ?)"


@dataclass(slots=True)
class Added:
    """What was added to the tables: how many segments of each series and day, and how many blocks."""

    segments: Counter[SeriesDay] = field(default_factory=Counter)
    blocks: Counter[BlockLevel] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class PackedDay:
    """Packed readings of one day.

    Attributes:
        day: The days since the epoch.
        segments: The rows of the segments.
        segment_ends: The ends of the series of the segments; None if there are none.
        blocks: The blocks.
    """

    day: int
    segments: list[tuple[int | bytes, ...]]
    segment_ends: SeriesEnds | None
    blocks: list[PackedBlock]


def pack_days(readings: PackedReadings) -> list[PackedDay]:
    """Packs readings."""
    return [_pack_day(day, of_day) for day, of_day in readings.by_day()]


def _pack_day(day: int, readings: PackedReadings) -> PackedDay:
    many = readings.lengths >= SEGMENT_READINGS
    if not many.any():
        return PackedDay(day, [], None, pack_blocks(readings))
    large = readings.of_series(many)
    blocks = [] if many.all() else pack_blocks(readings.of_series(~many))
    return PackedDay(day, _segments(large), SeriesEnds.of(large), blocks)


def _segments(readings: PackedReadings) -> list[tuple[int | bytes, ...]]:
    """Returns the row of a segment for each series."""
    rows: list[tuple[int | bytes, ...]] = []
    ends = readings.ends.tolist()
    starts = (readings.ends - readings.lengths).tolist()
    for number, start, end, ranks in zip(
        readings.numbers.tolist(), starts, ends, readings.ranks.parts(starts, ends), strict=True
    ):
        timestamps, values = readings.timestamps[start:end], readings.values[start:end]
        rows.append(
            (
                number,
                int(timestamps[0]),
                *ranks.highest,
                int(timestamps[-1]),
                end - start,
                pack(timestamps, values, ranks),
            )
        )
    return rows


def insert(connection: sqlite3.Connection, days: Iterable[PackedDay], level: int) -> Added:
    """Inserts packed readings. Their blocks get a level. Returns what was added. Raises sqlite3.Error."""
    added = Added()
    for day in days:
        connection.executemany(_INSERT_SEGMENT, day.segments)
        for row in day.segments:
            added.segments[int(row[0]), day.day] += 1
        if day.segment_ends is not None:
            day.segment_ends.update_rows(connection)
        insert_blocks(connection, day.blocks, level)
        for block in day.blocks:
            added.blocks[block.bucket, day.day, level] += 1
    return added


def insert_blocks(connection: sqlite3.Connection, blocks: Iterable[PackedBlock], level: int) -> None:
    """Inserts blocks with a level. Raises sqlite3.Error."""
    connection.executemany(
        _INSERT_BLOCK,
        [(block.bucket, level, block.start_us, block.end_us, block.count, block.head, block.data) for block in blocks],
    )
