"""The tables of the store, their versions, and the migrations from older versions."""

import sqlite3
from pathlib import Path

import numpy as np

from aurum.storage.segment import CorruptSegmentError, unpack

APPLICATION = "store"
VERSION = 7
SCHEMA = """
CREATE TABLE machines (machine_id TEXT PRIMARY KEY, machine_type TEXT NOT NULL, site TEXT NOT NULL,
    registered_us INTEGER NOT NULL, request_id TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE series (id INTEGER PRIMARY KEY, machine_id TEXT NOT NULL, sensor TEXT NOT NULL,
    first_us INTEGER NOT NULL, last_us INTEGER NOT NULL, last_value REAL, last_source INTEGER NOT NULL DEFAULT 0,
    last_sequence INTEGER NOT NULL DEFAULT 0, UNIQUE (machine_id, sensor));
CREATE TABLE sources (id INTEGER PRIMARY KEY, source_id TEXT NOT NULL UNIQUE, seen_us INTEGER NOT NULL,
    owner TEXT NOT NULL DEFAULT '', closed INTEGER NOT NULL DEFAULT 0);
CREATE TABLE source_numbers (last INTEGER NOT NULL);
INSERT INTO source_numbers VALUES (0);
CREATE TABLE received (source INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    PRIMARY KEY (source, first)) WITHOUT ROWID;
CREATE TABLE segments (id INTEGER PRIMARY KEY, series INTEGER NOT NULL, start_us INTEGER NOT NULL,
    source INTEGER NOT NULL, sequence INTEGER NOT NULL, end_us INTEGER NOT NULL, count INTEGER NOT NULL,
    data BLOB NOT NULL);
CREATE INDEX segments_by_start ON segments (series, start_us, source, sequence, end_us, count);
CREATE TABLE damaged_segments (id INTEGER PRIMARY KEY, series INTEGER NOT NULL, start_us INTEGER NOT NULL,
    source INTEGER NOT NULL, sequence INTEGER NOT NULL, end_us INTEGER NOT NULL, count INTEGER NOT NULL,
    data BLOB NOT NULL, problem TEXT NOT NULL);
CREATE TABLE blocks (id INTEGER PRIMARY KEY AUTOINCREMENT, bucket INTEGER NOT NULL, level INTEGER NOT NULL,
    start_us INTEGER NOT NULL, end_us INTEGER NOT NULL, count INTEGER NOT NULL, head BLOB NOT NULL, data BLOB NOT NULL);
CREATE INDEX blocks_by_start ON blocks (bucket, start_us, end_us, level, count);
CREATE TABLE damaged_blocks (id INTEGER PRIMARY KEY, bucket INTEGER NOT NULL, level INTEGER NOT NULL,
    start_us INTEGER NOT NULL, end_us INTEGER NOT NULL, count INTEGER NOT NULL, head BLOB NOT NULL, data BLOB NOT NULL,
    problem TEXT NOT NULL);
CREATE TABLE events (kind TEXT NOT NULL, machine_id TEXT NOT NULL, at_us INTEGER NOT NULL, id TEXT NOT NULL,
    data BLOB NOT NULL, number INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (kind, machine_id, at_us, id)) WITHOUT ROWID;
CREATE INDEX journal ON events (kind, number) WHERE machine_id = '';
CREATE INDEX events_about ON events (kind, substr(id, 1, instr(id, '~') - 1), at_us, id)
    WHERE machine_id = '' AND instr(id, '~') > 0;
CREATE TABLE machine_gateways (machine_id TEXT PRIMARY KEY, gateway TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE log_position (id INTEGER NOT NULL);
INSERT INTO log_position VALUES (0);
"""


def _from_1(connection: sqlite3.Connection) -> None:
    """Migrates from version 1.

    That version had segments clustered by key and no log. First and last readings had to be read from the segments.
    """
    for table in ("series", "segments", "sources"):
        connection.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
    for statement in SCHEMA.split(";"):
        created = statement.strip()
        if created and not created.startswith(("CREATE TABLE machines", "CREATE TABLE received")):
            connection.execute(created)
    connection.execute("INSERT INTO sources (id, source_id, seen_us) SELECT id, source_id, seen_us FROM old_sources")
    connection.execute(
        "INSERT INTO segments (series, start_us, source, sequence, end_us, count, data) "
        "SELECT series, start_us, source, sequence, end_us, count, data FROM old_segments ORDER BY series, start_us"
    )
    for series, machine_id, sensor in connection.execute("SELECT id, machine_id, sensor FROM old_series").fetchall():
        last_segment = connection.execute(
            "SELECT start_us, data FROM segments WHERE series = ? ORDER BY end_us DESC, source DESC, sequence DESC",
            (series,),
        ).fetchone()
        first = connection.execute("SELECT min(start_us) FROM segments WHERE series = ?", (series,)).fetchone()[0]
        if last_segment is not None:
            try:
                timestamps, values = unpack(last_segment[1])
            except CorruptSegmentError:  # set apart when it is read
                timestamps, values = np.array([last_segment[0]]), np.array([np.nan])
            connection.execute(
                "INSERT INTO series (id, machine_id, sensor, first_us, last_us, last_value) VALUES (?, ?, ?, ?, ?, ?)",
                (series, machine_id, sensor, first, int(timestamps[-1]), float(values[-1])),
            )
    for table in ("series", "segments", "sources"):
        connection.execute(f"DROP TABLE old_{table}")


def _from_2(connection: sqlite3.Connection) -> None:
    """Migrates from version 2.

    That version recorded neither the owner of a source, nor the order of events, nor the batch of a last reading. It
    had no table for damaged segments.
    """
    columns = [row[1] for row in connection.execute("PRAGMA table_info(sources)")]
    if "owner" in columns:  # _from_1 has already created the current tables
        return
    connection.execute("ALTER TABLE sources ADD COLUMN owner TEXT NOT NULL DEFAULT ''")
    for column in ("last_source", "last_sequence"):
        connection.execute(f"ALTER TABLE series ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0")
    connection.execute("ALTER TABLE events ADD COLUMN number INTEGER NOT NULL DEFAULT 0")
    # Events recorded before are numbered by their times
    rows = connection.execute("SELECT kind, at_us, id FROM events WHERE machine_id = '' ORDER BY at_us, id").fetchall()
    connection.executemany(
        "UPDATE events SET number = ? WHERE kind = ? AND machine_id = '' AND at_us = ? AND id = ?",
        [(number, *row) for number, row in enumerate(rows, start=1)],
    )
    for created in ("CREATE TABLE damaged_segments", "CREATE INDEX journal"):
        connection.execute(next(part for part in SCHEMA.split(";") if part.strip().startswith(created)))


def _from_3(connection: sqlite3.Connection) -> None:
    """Migrates from version 3.

    That version reused the numbers of forgotten sources, and refused all batches of a source with too many gaps. Its
    segments have one rank each. Its readers ignore the ranks in segments of this version.
    """
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if "source_numbers" not in tables:  # else _from_1 has already created the current tables
        connection.execute("ALTER TABLE sources ADD COLUMN closed INTEGER NOT NULL DEFAULT 0")
        connection.execute("CREATE TABLE source_numbers (last INTEGER NOT NULL)")
        connection.execute("INSERT INTO source_numbers VALUES (0)")
    for numbers in ("SELECT max(id) FROM sources", "SELECT max(source) FROM segments"):
        connection.execute(f"UPDATE source_numbers SET last = max(last, coalesce(({numbers}), 0))")  # noqa: S608


def _from_4(connection: sqlite3.Connection) -> None:
    """Migrates from version 4, which had no blocks."""
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if "blocks" in tables:  # _from_1 has already created the current tables
        return
    for created in ("CREATE TABLE blocks", "CREATE INDEX blocks_by_start", "CREATE TABLE damaged_blocks"):
        connection.execute(next(part for part in SCHEMA.split(";") if part.strip().startswith(created)))


def _from_5(connection: sqlite3.Connection) -> None:
    """Migrates from version 5, which found the events that concern a machine only among those of all machines."""
    indexes = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'index'")}
    if "events_about" not in indexes:  # else _from_1 has already created it
        connection.execute(
            next(part for part in SCHEMA.split(";") if part.strip().startswith("CREATE INDEX events_about"))
        )


def _from_6(connection: sqlite3.Connection) -> None:
    """Migrates from version 6, which did not store from which gateway the readings of a machine come."""
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if "machine_gateways" not in tables:  # else _from_1 has already created it
        connection.execute(
            next(part for part in SCHEMA.split(";") if part.strip().startswith("CREATE TABLE machine_gateways"))
        )


MIGRATIONS = {1: _from_1, 2: _from_2, 3: _from_3, 4: _from_4, 5: _from_5, 6: _from_6}


def log_folder(path: Path) -> Path:
    """Returns the folder of a store's log, beside its tables."""
    return path.with_name(path.name + "-log")


def damaged_folder(path: Path) -> Path:
    """Returns the folder to which damaged parts of a store are moved."""
    return path.with_name(path.name + "-damaged")
