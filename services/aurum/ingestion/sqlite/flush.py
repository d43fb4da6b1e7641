"""Flushing: packs the recent readings, and writes them in one transaction with the log's position."""

import sqlite3
from dataclasses import dataclass

from aurum.ingestion.memtable import Memtable
from aurum.ingestion.sqlite.packing import Added, insert, pack_days
from aurum.ingestion.sqlite.series_ends import NEVER
from aurum.ingestion.sqlite.sources import Source
from aurum.readings.batch import SeriesKey, now_us
from aurum.storage.database import transaction


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


def flush(connection: sqlite3.Connection, frozen: Frozen) -> Added:
    """Writes everything or nothing. Returns what was added. Raises sqlite3.Error."""
    # Packing takes long, so it is done before the transaction.
    packed = [day for readings in frozen.recent.packed() for day in pack_days(readings)]
    with transaction(connection):
        _write_sources(connection, frozen)
        _write_series(connection, frozen.new_series)
        added = insert(connection, packed, level=0)
        connection.execute("UPDATE log_position SET id = ?", (frozen.position,))
    return added


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
        [(number, *key, NEVER, -1) for number, key in new_series],
    )
