"""The store in one SQLite file: segments of series, a ledger of what each source sent, the registry of machines.

Of readings of a series at the same time the one of the source seen last counts, and of one source the one with the
highest sequence. A segment never spans two days (UTC), so that a range finds its segments by their start.
"""

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from aurum.ingestion import ledger
from aurum.ingestion.compaction import Compactor
from aurum.ingestion.downsample import Reducer, merge, reduce_points
from aurum.ingestion.store import DAY_US, MachineRecord, Points, SeriesSummary
from aurum.readings.batch import Batch, Series, Timestamps, Values, now_us
from aurum.readings.ingest_stream import Written
from aurum.runtime import metrics
from aurum.runtime.errors import AlreadyExistsError, InvalidArgumentError, UnavailableError
from aurum.storage.database import close, connect, prepare
from aurum.storage.group_commit import GroupCommitWriter
from aurum.storage.segment import pack, unpack

T = TypeVar("T")

VERSION = 1
_SCHEMA = """
CREATE TABLE machines (machine_id TEXT PRIMARY KEY, machine_type TEXT NOT NULL, site TEXT NOT NULL,
    registered_us INTEGER NOT NULL, request_id TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE series (id INTEGER PRIMARY KEY, machine_id TEXT NOT NULL, sensor TEXT NOT NULL,
    UNIQUE (machine_id, sensor));
CREATE TABLE sources (id INTEGER PRIMARY KEY AUTOINCREMENT, source_id TEXT NOT NULL UNIQUE, seen_us INTEGER NOT NULL);
CREATE TABLE received (source INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    PRIMARY KEY (source, first)) WITHOUT ROWID;
CREATE TABLE segments (series INTEGER NOT NULL, start_us INTEGER NOT NULL, source INTEGER NOT NULL,
    sequence INTEGER NOT NULL, end_us INTEGER NOT NULL, count INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (series, start_us, source, sequence)) WITHOUT ROWID;
"""
_READERS = 4  # threads that answer queries
_MAX_RAW = 500_000  # readings of one series in one answer; more have to be reduced
_SOURCE_MEMORY_US = 30 * DAY_US  # a source unseen for so long may not resend; what it sent stays
_PRUNE_EVERY = 3600.0  # seconds


class SqliteStore:
    """A Store in one file."""

    def __init__(self, path: Path, queue_bytes: int, timeout: float) -> None:
        """Raises NewerDatabaseError or sqlite3.DatabaseError, with a sentence, and leaves such a file untouched."""
        self._path = path
        self._queue_bytes = queue_bytes
        self._timeout = timeout
        prepare(path, "store", VERSION, _SCHEMA)
        self._writer: GroupCommitWriter | None = None
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="store-reader")
        self._connections: asyncio.LifoQueue[sqlite3.Connection] = asyncio.LifoQueue()
        # Known to the writer's thread alone, and forgotten when a group is rolled back:
        self._series_ids: dict[tuple[str, str], int] = {}
        self._known_machines: set[str] = set()
        self._sources: dict[str, tuple[int, list[ledger.Range]]] = {}
        self._compactor = Compactor()
        self._pruned = time.monotonic()

    async def start(self) -> None:
        self._writer = GroupCommitWriter(self._path, "store-writer", self._queue_bytes, self._forget)
        for _ in range(_READERS):
            self._connections.put_nowait(connect(self._path, read_only=True))

    async def close(self) -> None:
        if self._writer:
            await self._writer.close()
        self._readers.shutdown(wait=True)
        while not self._connections.empty():
            close(self._connections.get_nowait())

    def problem(self) -> str | None:
        return self._writer.problem if self._writer else "is not started"

    @property
    def waiting_bytes(self) -> int:
        return self._writer.waiting_bytes if self._writer else 0

    async def append(self, batch: Batch, *, wait: bool) -> Awaitable[Written]:
        return await self._started.submit(lambda connection: self._append(connection, batch), batch.nbytes, wait=wait)

    async def machines(self) -> list[MachineRecord]:
        return await self._reading("machines", _read_machines)

    async def summaries(self) -> list[SeriesSummary]:
        return await self._reading("summaries", _read_summaries, timeout=600.0)

    async def register(self, machine: MachineRecord) -> MachineRecord:
        return await self._started.run(lambda connection: self._register(connection, machine))

    async def read(
        self, machine_id: str, sensor: str, start_us: int, end_us: int, *, points: int = 0, last: int = 0
    ) -> Points:
        def query(connection: sqlite3.Connection) -> Points:
            row = connection.execute(
                "SELECT id FROM series WHERE machine_id = ? AND sensor = ?", (machine_id, sensor)
            ).fetchone()
            if row is None:
                return Points(*merge([]))
            if last:
                timestamps, values = _read_last(connection, row[0], start_us, end_us, last)
                return reduce_points(timestamps, values, start_us, end_us, points)
            return _read_range(connection, row[0], start_us, end_us, points)

        return await self._reading("read", query)

    @property
    def _started(self) -> GroupCommitWriter:
        if self._writer is None:
            raise UnavailableError("the store is not started")
        return self._writer

    async def _reading(
        self, operation: str, query: Callable[[sqlite3.Connection], T], timeout: float | None = None
    ) -> T:
        started = time.perf_counter()
        status = "error"
        connection = await self._connections.get()
        try:
            task = asyncio.get_running_loop().run_in_executor(self._readers, query, connection)
            try:
                result = await asyncio.wait_for(asyncio.shield(task), timeout or self._timeout)
            except (TimeoutError, asyncio.CancelledError):
                connection.interrupt()  # nobody waits for it any more
                await asyncio.wait([task])
                raise
            status = "ok"
            return result
        except TimeoutError as error:
            raise UnavailableError(f"the store did not answer within {timeout or self._timeout} s") from error
        finally:
            self._connections.put_nowait(connection)
            metrics.track_db_query(operation, time.perf_counter() - started, status)

    def _forget(self) -> None:
        self._series_ids.clear()
        self._known_machines.clear()
        self._sources.clear()
        self._compactor.forget()

    def _append(self, connection: sqlite3.Connection, batch: Batch) -> Written:
        source, ranges = self._source(connection, batch.source_id)
        if ledger.contains(ranges, batch.sequence):
            return Written(0, batch.readings)
        change = ledger.record(ranges, batch.sequence)
        connection.executemany(
            "DELETE FROM received WHERE source = ? AND first = ?", [(source, first) for first, _ in change.removed]
        )
        connection.execute("INSERT INTO received VALUES (?, ?, ?)", (source, *change.added))
        rows = []
        for series in batch.series:
            series_id = self._series(connection, series.machine_id, series.sensor)
            for timestamps, values in _days(series):
                start_us, end_us, count = int(timestamps[0]), int(timestamps[-1]), len(values)
                rows.append((series_id, start_us, source, batch.sequence, end_us, count, pack(timestamps, values)))
                self._compactor.note(series_id, start_us, count)
        connection.executemany("INSERT INTO segments VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        self._compactor.run(connection)
        self._prune(connection)
        return Written(batch.readings, 0)

    def _source(self, connection: sqlite3.Connection, source_id: str) -> tuple[int, list[ledger.Range]]:
        known = self._sources.get(source_id)
        if known is None:
            connection.execute(
                "INSERT INTO sources (source_id, seen_us) VALUES (?, ?) "
                "ON CONFLICT (source_id) DO UPDATE SET seen_us = excluded.seen_us",
                (source_id, now_us()),
            )
            source = connection.execute("SELECT id FROM sources WHERE source_id = ?", (source_id,)).fetchone()[0]
            ranges = connection.execute(
                "SELECT first, last FROM received WHERE source = ? ORDER BY first", (source,)
            ).fetchall()
            known = (source, ranges)
            if len(self._sources) >= 10_000:
                self._sources.pop(next(iter(self._sources)))
            self._sources[source_id] = known
        return known

    def _series(self, connection: sqlite3.Connection, machine_id: str, sensor: str) -> int:
        known = self._series_ids.get((machine_id, sensor))
        if known is None:
            if machine_id not in self._known_machines:
                connection.execute("INSERT OR IGNORE INTO machines VALUES (?, '', '', ?, '')", (machine_id, now_us()))
                self._known_machines.add(machine_id)
            connection.execute("INSERT OR IGNORE INTO series (machine_id, sensor) VALUES (?, ?)", (machine_id, sensor))
            known = connection.execute(
                "SELECT id FROM series WHERE machine_id = ? AND sensor = ?", (machine_id, sensor)
            ).fetchone()[0]
            self._series_ids[(machine_id, sensor)] = known
        return known

    def _register(self, connection: sqlite3.Connection, machine: MachineRecord) -> MachineRecord:
        row = connection.execute("SELECT * FROM machines WHERE machine_id = ?", (machine.machine_id,)).fetchone()
        if row is not None:
            found = MachineRecord(*row)
            same = (found.machine_type, found.site) == (machine.machine_type, machine.site)
            if found.machine_type and not (same and machine.request_id and machine.request_id == found.request_id):
                raise AlreadyExistsError(f"machine {machine.machine_id} is registered already")
            if found.machine_type:
                return found
        connection.execute(
            "INSERT OR REPLACE INTO machines VALUES (?, ?, ?, ?, ?)",
            (machine.machine_id, machine.machine_type, machine.site, machine.registered_us, machine.request_id),
        )
        return machine

    def _prune(self, connection: sqlite3.Connection) -> None:
        """Forgets sources that were not seen for long; refreshes the others that are in use."""
        if time.monotonic() - self._pruned < _PRUNE_EVERY:
            return
        self._pruned = time.monotonic()
        now = now_us()
        connection.executemany(
            "UPDATE sources SET seen_us = ? WHERE id = ?", [(now, source) for source, _ in self._sources.values()]
        )
        self._sources.clear()
        old = "(SELECT id FROM sources WHERE seen_us < ?)"
        connection.execute(f"DELETE FROM received WHERE source IN {old}", (now - _SOURCE_MEMORY_US,))  # noqa: S608
        connection.execute("DELETE FROM sources WHERE seen_us < ?", (now - _SOURCE_MEMORY_US,))


def _days(series: Series) -> list[tuple[Timestamps, Values]]:
    """The series sorted, without readings that a later one replaces, cut at midnight (UTC)."""
    timestamps, values = series.timestamps, series.values
    if not series.increasing:
        timestamps, values = merge([(timestamps, values)])
    if timestamps[0] // DAY_US == timestamps[-1] // DAY_US:
        return [(timestamps, values)]
    cuts = np.flatnonzero(np.diff(timestamps // DAY_US)) + 1
    return list(zip(np.split(timestamps, cuts), np.split(values, cuts), strict=True))


def _read_machines(connection: sqlite3.Connection) -> list[MachineRecord]:
    return [MachineRecord(*row) for row in connection.execute("SELECT * FROM machines ORDER BY machine_id")]


def _read_summaries(connection: sqlite3.Connection) -> list[SeriesSummary]:
    summaries = []
    for series_id, machine_id, sensor in connection.execute("SELECT id, machine_id, sensor FROM series").fetchall():
        first = connection.execute("SELECT min(start_us) FROM segments WHERE series = ?", (series_id,)).fetchone()[0]
        if first is not None:
            timestamps, values = _read_last(connection, series_id, 0, 2**62, 1)
            summaries.append(SeriesSummary(machine_id, sensor, first, int(timestamps[-1]), float(values[-1])))
    return summaries


def _merged(rows: list[tuple[int, int, bytes]], start_us: int, end_us: int) -> tuple[Timestamps, Values]:
    """Merges segments, given as (source, sequence, data) in any order, and cuts them to the range."""
    parts = [unpack(data) for _, _, data in sorted(rows, key=lambda row: row[:2])]
    timestamps, values = merge(parts)
    low, high = np.searchsorted(timestamps, [start_us, end_us])
    return timestamps[low:high], values[low:high]


def _day_start(at_us: int) -> int:
    return at_us // DAY_US * DAY_US


def _read_range(connection: sqlite3.Connection, series: int, start_us: int, end_us: int, points: int) -> Points:
    where = "WHERE series = ? AND start_us >= ? AND start_us < ?"
    span = (series, _day_start(start_us), end_us)
    first, last, total = connection.execute(
        f"SELECT min(start_us), max(start_us), sum(count) FROM segments {where}",  # noqa: S608
        span,
    ).fetchone()
    if not total:
        return Points(*merge([]))
    if not points and total > _MAX_RAW:
        raise InvalidArgumentError.of(
            "points", f"the range has {total} readings; ask for at most {_MAX_RAW}, or reduce them with points"
        )
    reduced = points and total > points
    reducer = Reducer(start_us, end_us, points) if reduced else None
    parts: list[tuple[Timestamps, Values]] = []
    for day in range(_day_start(first), last + 1, DAY_US):  # day by day, to hold no more in memory
        rows = connection.execute(
            f"SELECT source, sequence, data FROM segments {where}",  # noqa: S608
            (series, max(day, span[1]), min(day + DAY_US, end_us)),
        ).fetchall()
        timestamps, values = _merged(rows, start_us, end_us)
        if reducer:
            reducer.add(timestamps, values)
        else:
            parts.append((timestamps, values))
    return reducer.result() if reducer else Points(*merge(parts))


def _read_last(
    connection: sqlite3.Connection, series: int, start_us: int, end_us: int, last: int
) -> tuple[Timestamps, Values]:
    """The last so many readings in the range, read backwards day by day."""
    parts: list[tuple[Timestamps, Values]] = []
    found = 0
    before = end_us
    while found < last:
        newest = connection.execute(
            "SELECT max(start_us) FROM segments WHERE series = ? AND start_us < ?", (series, before)
        ).fetchone()[0]
        if newest is None or newest < _day_start(start_us):
            break
        day = _day_start(newest)
        part = _read_last_of_day(connection, series, (day, before), (start_us, end_us), last - found)
        parts.insert(0, part)
        found += len(part[0])
        before = day
    timestamps, values = merge(parts)
    return timestamps[-last:], values[-last:]


def _read_last_of_day(
    connection: sqlite3.Connection, series: int, starts: tuple[int, int], wanted: tuple[int, int], last: int
) -> tuple[Timestamps, Values]:
    """At least the last so many readings of segments that start in a range within one day, if there are as many."""
    keys = connection.execute(
        "SELECT start_us, source, sequence, end_us, count FROM segments "
        "WHERE series = ? AND start_us >= ? AND start_us < ?",
        (series, *starts),
    ).fetchall()
    keys.sort(key=lambda key: key[3])  # by their ends
    rows: list[tuple[int, int, bytes]] = []
    gathered = 0
    while True:
        needed = last
        while keys and gathered < needed:
            start, source, sequence, _, count = keys.pop()
            data = connection.execute(
                "SELECT data FROM segments WHERE series = ? AND start_us = ? AND source = ? AND sequence = ?",
                (series, start, source, sequence),
            ).fetchone()[0]
            rows.append((source, sequence, data))
            gathered += count
        timestamps, values = _merged(rows, *wanted)
        # Segments that were left out have no reading after the end of the last of them.
        if not keys or len(timestamps) - np.searchsorted(timestamps, keys[-1][3], side="right") >= last:
            return timestamps, values
        gathered = last - 1  # one more at least


def read_histories(path: Path) -> Iterator[tuple[MachineRecord, dict[str, tuple[Timestamps, Values]]]]:
    """Every machine of a store with all its readings, for training. Reads only, also while a service writes.

    Raises FileNotFoundError, NewerDatabaseError or sqlite3.DatabaseError.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give the path of a store, such as .aurum/store.db")
    prepare(path, "store", VERSION, _SCHEMA)
    connection = connect(path, read_only=True)
    try:
        for record in _read_machines(connection):
            columns = {}
            series = connection.execute(
                "SELECT id, sensor FROM series WHERE machine_id = ?", (record.machine_id,)
            ).fetchall()
            for series_id, sensor in series:
                points = _read_range(connection, series_id, 0, 2**62, 0)
                if len(points.timestamps):
                    columns[sensor] = (points.timestamps, points.values)
            if columns:
                yield record, columns
    finally:
        close(connection)
