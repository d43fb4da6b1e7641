"""Flushing: packs the recent readings into segments, and writes them in one transaction with the log's position."""

import itertools
import sqlite3
from dataclasses import dataclass

import numpy as np

from aurum.ingestion.memtable import Memtable, PackedSeries
from aurum.ingestion.series_index import SeriesIndex
from aurum.ingestion.sqlite.sources import Source
from aurum.readings.batch import SeriesKey, SeriesKeys, Timestamps, Values, now_us
from aurum.runtime.time_units import DAY_US
from aurum.storage.database import transaction
from aurum.storage.segment import pack

_NEVER = 2**62
AddedSegments = dict[tuple[int, int], int]  # (series, day) → number of added segments


@dataclass(frozen=True, slots=True)
class Frozen:
    """What is flushed together.

    Attributes:
        recent: The readings.
        position: The id of the last log record among them.
        new_series: The series that the tables do not have yet, each with its number.
        sources: The sources that have changed, with their ids.
        last_source: The last number that was assigned to a source.
    """

    recent: Memtable
    position: int
    new_series: list[tuple[int, SeriesKey]]
    sources: list[tuple[str, Source]]
    last_source: int


@dataclass(slots=True)
class _Row:
    rank: tuple[int, int]
    start_us: int
    end_us: int
    count: int
    data: bytes


@dataclass(frozen=True, slots=True)
class _Packed:
    """The segments of a series, without its readings.

    Attributes:
        key: The series.
        last_rank: The rank of the batch of its last reading.
        last_value: The value of that reading.
        rows: The segments.
    """

    key: SeriesKey
    last_rank: tuple[int, int]
    last_value: float
    rows: list[_Row]


def flush(connection: sqlite3.Connection, frozen: Frozen, series: SeriesIndex) -> AddedSegments:
    """Writes everything or nothing. Returns the added segments by series and day. Raises sqlite3.Error."""
    # Packing takes long, so it is done before the transaction.
    packed = [_pack_series(each) for each in frozen.recent.packed()]
    with transaction(connection):
        return _write(connection, frozen, packed, series)


def _write(connection: sqlite3.Connection, frozen: Frozen, packed: list[_Packed], index: SeriesIndex) -> AddedSegments:
    touched: AddedSegments = {}
    _write_sources(connection, frozen)
    _write_series(connection, frozen.new_series)
    segments: list[tuple[int | bytes, ...]] = []
    states: list[tuple[int | float, ...]] = []
    for series in packed:
        number = int(index.find(SeriesKeys([series.key]))[0])
        for row in series.rows:
            segments.append((number, row.start_us, *row.rank, row.end_us, row.count, row.data))
            place = (number, row.start_us // DAY_US)
            touched[place] = touched.get(place, 0) + 1
        first, last = series.rows[0].start_us, series.rows[-1].end_us
        states.append((first, last, series.last_value, number, *series.last_rank))
    connection.executemany(
        "INSERT INTO segments (series, start_us, source, sequence, end_us, count, data) VALUES (?, ?, ?, ?, ?, ?, ?)",
        segments,
    )
    connection.executemany(
        "UPDATE series SET first_us = ?1 WHERE id = ?2 AND first_us > ?1", [(state[0], state[3]) for state in states]
    )
    connection.executemany(
        "UPDATE series SET last_us = ?2, last_value = ?3, last_source = ?5, last_sequence = ?6 "
        "WHERE id = ?4 AND ?1 <= ?2 AND (?2, ?5, ?6) >= (last_us, last_source, last_sequence)",
        states,
    )
    connection.execute("UPDATE log_position SET id = ?", (frozen.position,))
    return touched


def _pack_series(series: PackedSeries) -> _Packed:
    rows = _rows(series.rank, series.timestamps, series.values)
    return _Packed(series.key, series.last_rank, float(series.values[-1]), rows)


def _rows(rank: tuple[int, int], timestamps: Timestamps, values: Values) -> list[_Row]:
    """Returns the segments of a sorted series, one per UTC day."""
    first, last = int(timestamps[0]), int(timestamps[-1])
    if first // DAY_US == last // DAY_US:
        return [_Row(rank, first, last, len(values), pack(timestamps, values))]
    days = timestamps // DAY_US
    cuts = [0, *(np.flatnonzero(days[1:] != days[:-1]) + 1).tolist(), len(values)]
    return [
        _Row(
            rank,
            int(timestamps[start]),
            int(timestamps[end - 1]),
            end - start,
            pack(timestamps[start:end], values[start:end]),
        )
        for start, end in itertools.pairwise(cuts)
    ]


def _write_sources(connection: sqlite3.Connection, frozen: Frozen) -> None:
    """Replaces the rows of the sources that have changed."""
    now = now_us()
    for source_id, source in frozen.sources:
        row = (source.number, source_id, now, source.owner, source.closed)
        connection.execute("INSERT OR REPLACE INTO sources VALUES (?, ?, ?, ?, ?)", row)
        connection.execute("DELETE FROM received WHERE source = ?", (source.number,))
        ranges = [(source.number, *each) for each in source.ranges]
        connection.executemany("INSERT INTO received VALUES (?, ?, ?)", ranges)
    connection.execute("UPDATE source_numbers SET last = ?", (frozen.last_source,))


def _write_series(connection: sqlite3.Connection, new_series: list[tuple[int, SeriesKey]]) -> None:
    """Adds series and their machines."""
    now = now_us()
    connection.executemany(
        "INSERT OR IGNORE INTO machines VALUES (?, '', '', ?, '')",
        [(machine_id, now) for machine_id in dict.fromkeys(key[0] for _, key in new_series)],
    )
    connection.executemany(
        "INSERT INTO series (id, machine_id, sensor, first_us, last_us) VALUES (?, ?, ?, ?, ?)",
        [(number, *key, _NEVER, -1) for number, key in new_series],
    )
