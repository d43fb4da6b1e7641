"""The store on one machine: a log for durability, and SQLite tables for queries.

A batch is appended to the log, synced and acknowledged. Recent readings are flushed from memory to the tables: as a
segment for each series with many of them, and as blocks of many series for the others. Blocks and small segments are
merged there, and old ones removed. After a kill, the log is replayed for the readings that the tables lack.

Of the readings of a series at the same time, the one with the highest rank counts: first by source (the one first
seen last), then by sequence. Neither a segment nor a block spans two UTC days, so those of a time range are found by
their start.
"""

import asyncio
import contextlib
import functools
import json
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aurum.ingestion import metrics, series_reader
from aurum.ingestion.memtable import ENTRY_BYTES, READING_BYTES, Memtable, SeriesPart
from aurum.ingestion.series_index import SeriesIndex
from aurum.ingestion.sqlite import reads, schema
from aurum.ingestion.sqlite.blocks import BlockReader, DamagedPart
from aurum.ingestion.sqlite.compaction import Compactor, expire
from aurum.ingestion.sqlite.flush import Frozen, flush
from aurum.ingestion.sqlite.last_readings import read_last_together
from aurum.ingestion.sqlite.quarantine import report_damaged_parts, set_apart
from aurum.ingestion.sqlite.readers import Readers
from aurum.ingestion.sqlite.series_ends import NEVER, AllEnds, SeriesEnds
from aurum.ingestion.sqlite.sources import Sources
from aurum.ingestion.store import (
    EVENT_MEMORY_US,
    HOUSEKEEPING,
    KEPT_KINDS,
    READ_AT_ONCE,
    Change,
    Event,
    MachineRecord,
    OnRegistered,
    OnStored,
    Points,
    SeriesSummary,
    complete_registration,
    require_same_registration,
)
from aurum.readings.batch import MAX_READINGS, MAX_SERIES, Batch, SeriesKey, now_us
from aurum.readings.batch_decoding import decode
from aurum.readings.source_owner import owner_after
from aurum.readings.transport.ingest_stream import Written
from aurum.runtime import damage
from aurum.runtime.errors import (
    AurumError,
    InternalError,
    ResourceExhaustedError,
    UnavailableError,
)
from aurum.runtime.time_units import DAY_US
from aurum.storage.database import close, connect, prepare, transaction
from aurum.storage.durable_file import write_file
from aurum.storage.folder_lock import FolderLock
from aurum.storage.group_commit import GroupCommit
from aurum.storage.metrics import track_db_query
from aurum.storage.segment_log import READ_BYTES, Record
from aurum.storage.sequence_ranges import contains
from aurum.storage.wal import WriteAheadLog, write_error

logger = logging.getLogger(__name__)

_LOG_FILE_BYTES = 32_000_000
_MIN_FREE = "AURUM_INGESTION_MIN_FREE_BYTES"
_TABLE_WORK = 10_000  # pieces of work that may wait for the tables
_SOURCE_MEMORY_US = 30 * DAY_US  # a source unseen for this long is forgotten and must not resend; its readings stay
_FIND_DUE_EVERY = 3600.0  # seconds
_COUNT_EVERY = 30.0  # seconds
_EXPIRE_EVERY = 60.0  # seconds; finding what has expired reads an index of all segments
_UNARY_WAIT = 2.0  # seconds that a unary batch waits for room before it is refused; its sender cannot be held back


@dataclass(frozen=True, slots=True)
class SqliteOptions:
    """Options of the store.

    Attributes:
        path: The database file. The log is in a folder beside it.
        queue_bytes: The bytes of batches that may wait for the log.
        recent_bytes: The bytes of recent readings in memory from which on they are flushed.
        flush_seconds: The seconds after which recent readings are flushed in any case.
        retention: The days that readings are kept; 0 for ever.
        min_free_bytes: The free bytes of the disk below which batches are refused.
        timeout: The seconds within which a query must be answered.
    """

    path: Path
    queue_bytes: int = 24_000_000
    recent_bytes: int = 12_000_000
    flush_seconds: float = 300.0
    retention: float = 0.0
    min_free_bytes: int = 200_000_000
    timeout: float = 10.0


Work = Callable[[sqlite3.Connection], Any]  # works on the tables


class SqliteStore:
    """A Store in one file and one folder, both owned by this process."""

    shared = False

    def __init__(self, options: SqliteOptions) -> None:
        """Opens the store and replays its log. Blocks while another process uses the files.

        After an error the files are unchanged.

        Raises:
            NewerDatabaseError: If a newer version made the database.
            sqlite3.DatabaseError: If the database cannot be read.
            OSError: If the files cannot be used.
        """
        self._options = options
        self._owned = FolderLock(schema.log_folder(options.path))
        prepare(options.path, schema.APPLICATION, schema.VERSION, schema.SCHEMA, schema.MIGRATIONS)
        self._tables_connection = connect(options.path)
        self._upkeep_connection = connect(options.path)  # of maintenance, for which no caller waits
        self._log_connection = connect(options.path, read_only=True)
        self._last_number = reads.last_number(self._log_connection)  # of the recorded events
        self._sources = Sources(self._log_connection)
        self._log = WriteAheadLog(
            schema.log_folder(options.path), _LOG_FILE_BYTES, options.min_free_bytes, _MIN_FREE, "the store"
        )
        self.series = SeriesIndex()
        self.series.load(reads.read_series(self._log_connection))
        self._flushed_series = len(self.series)  # series with lower numbers are in the tables
        self._recent = self._new_memtable()
        self._frozen: Frozen | None = None
        self._replay()
        self._compactor = Compactor()
        self._readers = Readers(options.path, options.timeout)
        self._appends: GroupCommit[Batch, Written] | None = None
        self._tables: GroupCommit[Work, Any] | None = None
        self._upkeep: GroupCommit[Work, Any] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()  # wakes the housekeeping: there is something to flush
        self._room = asyncio.Event()  # set when there is room in memory for more readings
        self._flushed_at = time.monotonic()
        self._looked_at = -_FIND_DUE_EVERY
        self._counted_at = -_COUNT_EVERY
        self._expired_at = -_EXPIRE_EVERY
        self._tables_problem: str | None = None
        self._failing: set[str] = set()  # names of the maintenance work that failed the last time

    async def start(self) -> None:
        """Starts the threads of the log and of the tables, and the housekeeping."""
        self._appends = GroupCommit("store-log", self._append, self._options.queue_bytes)
        self._tables = GroupCommit("store-tables", self._worker_on(self._tables_connection), _TABLE_WORK)
        self._upkeep = GroupCommit("store-upkeep", self._worker_on(self._upkeep_connection), _TABLE_WORK)
        self._keeper = asyncio.create_task(self._run_housekeeping(), name="store-housekeeping")

    async def close(self) -> None:
        """Writes what is queued, flushes the recent readings, and closes the files."""
        if self._keeper and self._appends and self._tables and self._upkeep:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            # The log already makes the readings durable. A flush now saves the next start from replaying them.
            with contextlib.suppress(AurumError):
                await self._flush()  # may only wait for a flush that is in progress
                await self._flush()
            await self._appends.close()
            await self._tables.close()
            await self._upkeep.close()
        self._readers.close()
        self._log.close()
        close(self._log_connection)
        close(self._tables_connection)
        close(self._upkeep_connection)
        self._owned.close()

    def problem(self) -> str | None:
        """Returns why batches or tables cannot be written at the moment, or None."""
        if self._appends is None:
            return "is not started"
        return self._log.problem or self._tables_problem

    @property
    def waiting_bytes(self) -> int:
        """The bytes of batches that wait for the log."""
        return self._appends.waiting_bytes if self._appends else 0

    async def append_batch(self, batch: Batch, *, wait: bool) -> Awaitable[Written]:
        """Queues a batch for the log; see Store.append_batch."""
        while self._is_full():
            if self._tables_problem:
                raise ResourceExhaustedError(
                    f"the store accepts no more batches: {self._tables_problem}", retry_after=1.0
                )
            self._room.clear()
            self._wake.set()
            try:
                async with asyncio.timeout(None if wait else _UNARY_WAIT):
                    await self._room.wait()
            except TimeoutError:
                raise ResourceExhaustedError("the store's tables do not keep up", retry_after=1.0) from None
        return await self._require_started(self._appends).submit(batch, batch.nbytes, wait=wait)

    async def list_machines(self) -> list[MachineRecord]:
        """Returns all machines, including those that are only in the recent readings."""
        machines = await self._readers.run_query("machines", reads.read_machines)
        present = {machine.machine_id for machine in machines}
        for memtable in self._memtables():
            for number in np.unique(self.series.machines_of(memtable.numbers())).tolist():
                machine_id = self.series.machine_id(number)
                if machine_id not in present:
                    present.add(machine_id)
                    machines.append(MachineRecord(machine_id, "", "", now_us(), ""))
        return machines

    async def summaries(self) -> list[SeriesSummary]:
        """Returns the summary of each series, including its recent readings."""
        # Memory first, as in read_several
        memtables, ends = self._memtables(), AllEnds(len(self.series))

        def query(connection: sqlite3.Connection) -> None:
            reads.read_ends(connection, ends)
            for memtable in memtables:
                for readings in memtable.packed():
                    ends.include(SeriesEnds.of(readings))

        await self._readers.run_query("summaries", query, timeout=600.0)
        columns = (ends.firsts, ends.lasts, ends.values, ends.sources, ends.sequences)
        return [
            SeriesSummary(*self.series.key_of(number), first, last, value, (source, sequence))
            for number, (first, last, value, source, sequence) in enumerate(
                zip(*(column.tolist() for column in columns), strict=True)
            )
            if first < NEVER
        ]

    async def register(self, machine: MachineRecord, registered: OnRegistered | None = None) -> MachineRecord:
        """Registers a machine; see Store.register."""
        return await complete_registration(
            self._on_tables(lambda connection: _register(connection, machine)), registered
        )

    async def gateways(self) -> dict[str, str]:
        """Returns the gateway of each machine; see Store.gateways."""
        return await self._readers.run_query("machines", reads.read_gateways)

    async def record_gateways(self, gateways: Mapping[str, str]) -> None:
        """Stores the gateways of machines; see Store.record_gateways."""
        rows = list(gateways.items())
        await self._on_tables(
            lambda connection: connection.executemany("INSERT OR REPLACE INTO machine_gateways VALUES (?, ?)", rows)
        )

    async def sent_only_by(self, machine_id: str, owner: str) -> bool:
        """Whether one owner owns all sources of a machine; see Store.sent_only_by."""
        return await self._require_started(self._appends).call(lambda: self._sent_only_by(machine_id, owner))

    def follow(self, on_stored: OnStored) -> None:
        """Does nothing, since no other process writes to the store."""

    async def changes(self) -> list[Change]:
        """Returns an empty list, since no other process writes to this store."""
        return []

    async def find_machine(self, machine_id: str) -> Change | None:
        """Returns None, since no other process writes to this store."""
        return None

    async def record_events(self, events: Sequence[Event]) -> None:
        """Stores events, and numbers those that are new."""
        rows = [(event.kind, event.machine_id, event.at_us, event.id, event.data) for event in events]

        def insert(connection: sqlite3.Connection) -> None:
            # Numbers also follow the clock, so that they keep increasing when the last events are deleted
            first = max(self._last_number + 1, now_us())
            self._last_number = first + len(rows) - 1
            connection.executemany(
                "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (kind, machine_id, at_us, id) DO UPDATE SET data = excluded.data",
                [(*row, number) for number, row in enumerate(rows, start=first)],
            )

        await self._on_tables(insert)

    async def journal(self, kind: str, after: int, before: int, limit: int) -> list[Event]:
        """Returns events of the plant as a whole; see Store.journal."""
        return await self._readers.run_query(
            "events", lambda connection: reads.read_journal(connection, kind, after, before, limit)
        )

    async def events_about(  # noqa: PLR0917
        self, kind: str, about: str, start_us: int, end_us: int, limit: int, before: tuple[int, str] | None = None
    ) -> list[Event]:
        """Returns the newest events of the plant as a whole that concern a machine; see Store.events_about."""
        return await self._readers.run_query(
            "events",
            lambda connection: reads.read_events_about(connection, kind, about, start_us, end_us, limit, before),
        )

    async def events(  # noqa: PLR0917
        self, kind: str, machine_id: str, start_us: int, end_us: int, limit: int, before: tuple[int, str] | None = None
    ) -> list[Event]:
        """Returns the newest events of a machine; see Store.events."""
        return await self._readers.run_query(
            "events",
            lambda connection: reads.read_events(connection, kind, machine_id, start_us, end_us, limit, before),
        )

    async def read(
        self, machine_id: str, sensor: str, start_us: int, end_us: int, *, points: int = 0, last: int = 0
    ) -> Points:
        """Returns readings of a series; see Store.read."""
        return (await self.read_several(machine_id, [sensor], start_us, end_us, points=points, last=last))[0]

    async def read_several(
        self, machine_id: str, sensors: Sequence[str], start_us: int, end_us: int, *, points: int = 0, last: int = 0
    ) -> list[Points]:
        """Returns readings of the first of several series; see Store.read_several."""
        keys = [(machine_id, sensor) for sensor in sensors]
        return await self.read_keys(keys, start_us, end_us, points=points, last=last)

    async def read_keys(
        self, keys: Sequence[SeriesKey], start_us: int, end_us: int, *, points: int = 0, last: int = 0
    ) -> list[Points]:
        """Returns readings of the first of several series; see Store.read_keys. Damaged segments are set apart."""
        # Memory first: readings that are flushed in between are then found twice, which is harmless.
        recent = [self._parts_of(key) for key in keys]
        damaged: dict[DamagedPart, str] = {}

        def query(connection: sqlite3.Connection) -> list[Points]:
            blocks = BlockReader(connection, damaged)
            if last:
                numbers = [self.series.number_of(key) for key in keys]
                try:
                    together = read_last_together(connection, blocks, numbers, recent, start_us, end_us, points, last)
                except sqlite3.OperationalError:
                    raise
                except sqlite3.DatabaseError:  # a page is damaged: reading the series one by one tells which
                    together = None
                if together is not None:
                    return together
            points_of: list[Points] = []
            count = 0
            for key, parts in zip(keys, recent, strict=True):
                series = reads.SqliteSeries(connection, self.series.number_of(key), parts, blocks, damaged)
                points_of.append(_read_series(series, key, start_us, end_us, points, last))
                count += len(points_of[-1].timestamps)
                if count >= READ_AT_ONCE:
                    break
            return points_of

        answer = await self._readers.run_query("read", query)
        if damaged:
            await self._require_started(self._tables).run(lambda connection: set_apart(connection, damaged), 1)
        return answer

    @staticmethod
    def _require_started(part: GroupCommit[Any, Any] | None) -> GroupCommit[Any, Any]:
        if part is None:
            raise UnavailableError("the store is not started")
        return part

    async def _on_tables(self, work: Work) -> Any:
        """Runs a piece of work on the tables in a transaction, on their thread."""

        def in_transaction(connection: sqlite3.Connection) -> Any:
            with transaction(connection):
                return work(connection)

        return await self._require_started(self._tables).run(in_transaction, 1)

    # Recent readings

    def _is_full(self) -> bool:
        """Whether what is flushed, what follows it, and the readings that wait for the log take too much memory."""
        recent = self._recent_bytes
        waiting = self.waiting_bytes // 2  # the rest are their messages
        # With fewer recent readings than one flush, no flush would end the wait
        return recent > self._options.recent_bytes and recent + waiting > 2 * self._options.recent_bytes

    def _new_memtable(self) -> Memtable:
        """Returns a memtable with room for what is flushed at once, which takes memory only as it is filled."""
        recent_bytes = self._options.recent_bytes
        readings = recent_bytes // READING_BYTES + MAX_READINGS
        return Memtable(self.series, readings, recent_bytes // (READING_BYTES + ENTRY_BYTES) + MAX_SERIES)

    @property
    def _recent_bytes(self) -> int:
        return self._recent.nbytes + (self._frozen.recent.nbytes if self._frozen else 0)

    def _memtables(self) -> list[Memtable]:
        recent, frozen = self._recent, self._frozen  # in the reverse order, a freeze in between would hide readings
        return [frozen.recent, recent] if frozen else [recent]

    def _parts_of(self, key: SeriesKey) -> list[SeriesPart]:
        return [part for memtable in self._memtables() for part in memtable.parts(key)]

    def _replay(self) -> None:
        """Adds the readings that are in the log and not in the tables to the recent readings."""
        started = time.perf_counter()
        position: int = self._log_connection.execute("SELECT id FROM log_position").fetchone()[0]
        self._log.trim(position)
        self._log.next_id = max(self._log.next_id, position + 1)
        while records := self._log.read(position, READ_BYTES):
            for record in records:
                try:
                    batch = decode(record.payload, now=2**62)
                except AurumError as error:
                    self._set_record_apart(record, error)
                    continue
                self.series.assign(batch.keys)
                self._recent.add_batch(batch, self._sources.record_batch(batch))
            position = records[-1].id
        if self._recent.readings:
            seconds = time.perf_counter() - started
            logger.info("%d readings replayed from the log in %.2f s", self._recent.readings, seconds)

    def _set_record_apart(self, record: Record, error: AurumError) -> None:
        """Sets apart a valid record that this version cannot decode, so that the store can start without it."""
        folder = schema.damaged_folder(self._options.path)
        folder.mkdir(parents=True, exist_ok=True)
        write_file(folder / f"log-record-{record.id}.bin", record.payload)
        name = f"{record.id} of {self._log.folder.name}"
        damage.report("log record", name, error.message, f"it is kept in {folder} and its readings are in no answer")

    # On the log thread

    def _append(self, batches: list[Batch]) -> list[Written | AurumError]:
        """Appends batches to the log and measures the time."""
        started = time.perf_counter()
        status = "error"
        try:
            outcomes = self._append_batches(batches)
            status = "ok"
        finally:
            track_db_query("append", time.perf_counter() - started, status)
        return outcomes

    def _append_batches(self, batches: list[Batch]) -> list[Written | AurumError]:
        """Appends the batches that are new. Returns for each what became of it, or the error that refuses it."""
        new_batches: dict[tuple[str, int], Batch] = {}
        places: dict[tuple[str, int], int] = {}  # index of each fresh batch in `outcomes`
        owners: dict[str, str] = {}  # owners of the sources of these batches
        outcomes: list[Written | AurumError] = []
        for batch in batches:
            key = (batch.source_id, batch.sequence)
            try:
                owner = owners.get(batch.source_id, self._sources.get(batch.source_id).owner)
                owners[batch.source_id] = owner_after(owner, batch.owner, batch.source_id)
                if key not in new_batches:
                    self._sources.require_open_sequence(batch)
                if key in new_batches or contains(self._sources.get(batch.source_id).ranges, batch.sequence):
                    outcomes.append(Written(0, batch.readings))
                    continue
            except AurumError as error:
                outcomes.append(error)
                continue
            new_batches[key] = batch
            places[key] = len(outcomes)
            outcomes.append(Written(batch.readings, 0))
        if new_batches:
            self._log.write([batch.data for batch in new_batches.values()])
            for place, batch in new_batches.items():
                self.series.assign(batch.keys)  # only now, so that a failed write numbers no invented names
                rank = self._sources.record_batch(batch)
                self._recent.add_batch(batch, rank)
                outcomes[places[place]] = Written(batch.readings, 0, rank)
            if self._recent.nbytes >= self._options.recent_bytes:
                self._freeze()  # at once, so that what waits in the queue does not enlarge what is flushed
                self._wake_housekeeping()
        return outcomes

    def _sent_only_by(self, machine_id: str, owner: str) -> bool:
        # Memory first: readings that are flushed in between are then found twice
        keys = [self.series.key_of(number) for number in self.series.series_of(machine_id)]
        numbers = {part.rank[0] for key in keys for part in self._parts_of(key)}
        numbers |= reads.read_source_numbers(self._log_connection, machine_id)
        return bool(numbers) and self._sources.owners_of(numbers) == {owner}

    def _freeze(self) -> Frozen | None:
        """Freezes the recent readings unless an earlier freeze is not flushed yet.

        Returns what is to be flushed, or None.
        """
        if self._frozen is None and self._recent.readings:
            new_series = self.series.added_since(self._flushed_series)
            frozen = Frozen(self._recent, self._log.next_id - 1, new_series, *self._sources.freeze())
            self._frozen, self._recent = frozen, self._new_memtable()
        return self._frozen

    def _wake_housekeeping(self) -> None:
        """Wakes the housekeeping. May be called on any thread."""
        if self._appends:
            self._appends.loop.call_soon_threadsafe(self._wake.set)

    def _worker_on(self, connection: sqlite3.Connection) -> Callable[[list[Work]], list[Any]]:
        """Returns a function that runs pieces of work on a connection."""
        return lambda items: [_run_work(work, connection) for work in items]

    def _prune(self, connection: sqlite3.Connection) -> None:
        """Forgets sources that were not seen for 30 days, and deletes old events."""
        now = now_us()
        self._sources.forget(connection, now - _SOURCE_MEMORY_US)
        with transaction(connection):
            # Both the event's time and its number (the time of recording) must be old: a device's clock may be far
            # behind
            before = now - EVENT_MEMORY_US
            connection.execute(
                "DELETE FROM events WHERE at_us < ? AND number < ? AND kind NOT IN (SELECT value FROM json_each(?))",
                (before, before, json.dumps(sorted(KEPT_KINDS))),
            )

    async def _run_housekeeping(self) -> None:
        """Flushes, merges and deletes, for as long as the store runs."""
        backoff = HOUSEKEEPING
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self._update_disk_gauges()
                grown = self._recent.nbytes >= self._options.recent_bytes
                if grown or self._frozen or time.monotonic() - self._flushed_at >= self._options.flush_seconds:
                    await self._flush()
                backoff = HOUSEKEEPING
                self._tables_problem = None
            except AurumError as error:
                if self._tables_problem is None:
                    logger.error("the tables of the store cannot be written, which is retried: %s", error.message)
                self._tables_problem = error.message
                backoff = min(30.0, backoff * 2)
            except Exception:  # without housekeeping the store would soon refuse everything
                logger.exception("the store's housekeeping failed and is retried")
                self._tables_problem = "its housekeeping failed; the log says more"
                backoff = min(30.0, backoff * 2)
            self._room.set()
            await self._maintain()

    async def _flush(self) -> None:
        """Flushes the recent readings to the tables.

        A flush that has begun runs to its end even if the caller is cancelled, because readings in the tables must
        not be written again.
        """
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush_once(), name="store-flush")
        await asyncio.shield(self._flushing)

    async def _flush_once(self) -> None:
        frozen = await self._require_started(self._appends).call(self._freeze)
        if frozen is None:
            self._flushed_at = time.monotonic()
            return
        started, position = time.perf_counter(), frozen.position
        work = functools.partial(flush, frozen=frozen)
        added = await self._require_started(self._tables).run(work, 1)
        track_db_query("flush", time.perf_counter() - started)
        self._sources.mark_flushed()
        if frozen.new_series:
            self._flushed_series = frozen.new_series[-1][0] + 1
        self._frozen = None
        del frozen, work  # the readings, which are in the tables now
        self._flushed_at = time.monotonic()
        self._room.set()
        await self._require_started(self._upkeep).call(lambda: self._compactor.record_added(added))
        await self._require_started(self._appends).call(lambda: self._log.trim(position))

    async def _maintain(self) -> None:
        """Runs the maintenance that is due. Returns early when readings wait to be flushed.

        Failures are logged and retried later. The store accepts and answers meanwhile.
        """
        now = time.monotonic()
        if now - self._looked_at >= _FIND_DUE_EVERY:
            self._looked_at = now
            await self._run_maintenance(
                "finding segments to merge", lambda tables: self._compactor.find_due(tables, now_us())
            )
            await self._run_maintenance("pruning sources and events", self._prune)
        if now - self._counted_at >= _COUNT_EVERY:
            self._counted_at = now
            segments, blocks = await self._run_maintenance("counting segments", _count_segments) or (0, 0)
            metrics.ingestion_segments.set(segments)
            metrics.ingestion_blocks.set(blocks)
            await self._run_maintenance("reporting damaged segments", report_damaged_parts)
        if self._options.retention and now - self._expired_at >= _EXPIRE_EVERY:
            self._expired_at = now
            before = now_us() - int(self._options.retention * DAY_US)
            while expired := await self._run_maintenance(
                "removing expired readings", lambda tables: expire(tables, before)
            ):
                metrics.ingestion_readings_expired_total.inc(expired)
        while self._compactor.due and not self._wake.is_set():
            merged, merged_blocks = self._compactor.merged_segments, self._compactor.merged_blocks
            await self._run_maintenance("merging segments", lambda tables: self._compactor.merge_next(tables, now_us()))
            metrics.ingestion_segments_merged_total.inc(self._compactor.merged_segments - merged)
            metrics.ingestion_blocks_merged_total.inc(self._compactor.merged_blocks - merged_blocks)
            if "merging segments" in self._failing:
                break

    async def _run_maintenance(self, what: str, work: Work) -> Any:
        """Runs a maintenance task on the tables. Returns its result, or None if it failed.

        Args:
            what: The task, for the log.
            work: The work on the tables.
        """
        try:
            done = await self._require_started(self._upkeep).run(work, 1)
        except AurumError as error:
            if what not in self._failing:
                logger.error("%s failed and is retried: %s", what, error.message)
            self._failing.add(what)
            metrics.ingestion_maintenance_failures_total.inc()
            return None
        self._failing.discard(what)
        return done

    async def _update_disk_gauges(self) -> None:
        """Updates the gauges, and clears the problem of a full disk when there is room again."""
        metrics.ingestion_disk_free_bytes.set(await asyncio.to_thread(self._log.check_space))
        metrics.ingestion_store_bytes.labels("log").set(self._log.bytes_on_disk)
        metrics.ingestion_store_bytes.labels("tables").set(await asyncio.to_thread(_database_bytes, self._options.path))
        metrics.ingestion_recent_bytes.set(self._recent_bytes)


def _run_work(work: Work, connection: sqlite3.Connection) -> Any:
    """Returns the result of a piece of work, or an AurumError."""
    try:
        return work(connection)
    except AurumError as error:
        return error
    except sqlite3.Error as error:
        return write_error(error, "the store", f"cannot be written: {error}")
    except Exception:
        logger.exception("work on the tables failed")
        return InternalError("the store failed; its log says more")


def _read_series(  # noqa: PLR0917
    series: reads.SqliteSeries, key: SeriesKey, start_us: int, end_us: int, points: int, last: int
) -> Points:
    """Reads a series. One whose pages are damaged is reported and has no readings."""
    try:
        return series_reader.read(series, start_us, end_us, points=points, last=last)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        name = f"machine {key[0]}, sensor {key[1]}"
        damage.report("series", name, str(error), "its stored readings are in no answer; restore a backup")
        return Points(np.empty(0, np.int64), np.empty(0, np.float64))


def _count_segments(connection: sqlite3.Connection) -> tuple[int, int]:
    """Returns the number of segments and of blocks."""
    row = connection.execute("SELECT (SELECT count(*) FROM segments), (SELECT count(*) FROM blocks)").fetchone()
    return int(row[0]), int(row[1])


def _database_bytes(path: Path) -> int:
    """Returns the bytes of a database and its write-ahead log."""
    wal = path.with_name(path.name + "-wal")
    return path.stat().st_size + (wal.stat().st_size if wal.exists() else 0)


def _register(connection: sqlite3.Connection, machine: MachineRecord) -> MachineRecord:
    """Registers a machine in the tables, unless the same request has registered it already."""
    row = connection.execute("SELECT * FROM machines WHERE machine_id = ?", (machine.machine_id,)).fetchone()
    if row is not None:
        registered = MachineRecord(*row)
        if registered.machine_type:
            require_same_registration(registered, machine)
            return registered
    connection.execute(
        "INSERT OR REPLACE INTO machines VALUES (?, ?, ?, ?, ?)",
        (machine.machine_id, machine.machine_type, machine.site, machine.registered_us, machine.request_id),
    )
    return machine
