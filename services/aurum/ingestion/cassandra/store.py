"""The store on Cassandra, for more than one replica of ingestion.

A replica keeps only caches. An acknowledged batch is in a quorum of Cassandra's replicas.

As in the store on one machine, of the readings of a series at the same time the one with the highest rank counts:
first by source (the one first seen last), then by sequence.
"""

import asyncio
import contextlib
import functools
import logging
import secrets
import time
import zlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from aurum.ingestion import metrics, series_reader
from aurum.ingestion.cassandra.compaction import Compactor, merge_day
from aurum.ingestion.cassandra.latest import encode, latest_of
from aurum.ingestion.cassandra.schema import BLOCK, BUCKETS, EVENT_TTL, SLOT_SECONDS
from aurum.ingestion.cassandra.series import CassandraSeries, SegmentsChangedError
from aurum.ingestion.cassandra.session import CassandraOptions, CassandraSession
from aurum.ingestion.cassandra.single_flight import SingleFlight
from aurum.ingestion.downsample import merge_parts
from aurum.ingestion.series_index import SeriesIndex
from aurum.ingestion.store import (
    HOUSEKEEPING,
    KEPT_KINDS,
    MOST_RANKED,
    SETTLED_US,
    Change,
    Event,
    Latest,
    MachineRecord,
    OnRegistered,
    Points,
    SeriesSummary,
    complete_registration,
    require_same_registration,
)
from aurum.readings.batch import Batch, Series, now_us
from aurum.readings.source_owner import owner_after
from aurum.readings.transport.ingest_stream import Written
from aurum.runtime.errors import AurumError, ResourceExhaustedError, UnavailableError
from aurum.runtime.time_units import DAY_US
from aurum.storage import sequence_ranges
from aurum.storage.metrics import track_db_query
from aurum.storage.ranks import Rank
from aurum.storage.segment import pack

T = TypeVar("T")
logger = logging.getLogger(__name__)

_READERS = 8  # threads that answer queries
_SOURCES = 10_000  # sources whose sequences are cached
_BLOCKS = 4  # blocks of sequences that are cached for each source
_LOOK_UP_EVERY = 86_400.0  # seconds; often enough to renew the expiry of a source in use
_KNOWN = 200_000  # machines, and days of series, that are remembered as being in the tables
_SLOTS_BACK = 3  # slots of changes that are read back, to tolerate clocks that differ a little
_SERIES_AT_ONCE = 8  # series that are read at once
_READ_ATTEMPTS = 5  # attempts of a query while segments are being merged
_FIRST = 2**61  # µs; the write time of a first reading is this minus its time, so that the earliest one wins
_EACH_BUCKET = [(bucket,) for bucket in range(BUCKETS)]


@dataclass(slots=True)
class _Source:
    """What is cached of a source.

    Attributes:
        order: The time of its first batch (µs).
        owner: The caller that owns it; empty if unknown.
        looked_up: The monotonic time of the last look-up in the tables.
        received: The sequences known to be stored, by block.
    """

    order: int
    owner: str
    looked_up: float
    received: dict[int, list[sequence_ranges.Range]] = field(default_factory=dict)


class CassandraStore:
    """A Store that several processes share."""

    shared = True

    def __init__(self, options: CassandraOptions, queue_bytes: int, retention: float) -> None:
        """Connects to Cassandra.

        Args:
            options: How to connect.
            queue_bytes: The bytes of batches that may be on their way to Cassandra.
            retention: The days that readings are kept; 0 for ever.

        Raises:
            UnavailableError: If Cassandra cannot be reached.
            FailedPreconditionError: If it has too few nodes, or a newer version made the keyspace.
        """
        self.series = SeriesIndex()
        self._session = CassandraSession(options)
        self._queue_bytes = queue_bytes
        self._ttl = int(retention * 86_400)
        self._replica = secrets.token_hex(6)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="store-reader")
        self._packer = ThreadPoolExecutor(1, thread_name_prefix="store-packer")
        self._merger = ThreadPoolExecutor(1, thread_name_prefix="store-merger")
        self._compactor = Compactor()
        self._sources: OrderedDict[str, _Source] = OrderedDict()
        self._noted: OrderedDict[tuple[Any, ...], None] = OrderedDict()
        self._shown: OrderedDict[tuple[str, str], Latest] = OrderedDict()  # published here, by series
        self._firsts: OrderedDict[str, int] = OrderedDict()  # earliest reading published here, by machine
        self._once = SingleFlight()
        self._waiting_bytes = 0
        self._last_number = 0  # of the recorded events
        self._room = asyncio.Event()
        self._writes: set[asyncio.Task[Written]] = set()
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts the housekeeping."""
        self._keeper = asyncio.create_task(self._run_housekeeping(), name="store-housekeeping")

    async def close(self) -> None:
        """Waits for the batches in progress, then closes the connections."""
        if self._writes:
            await asyncio.wait(self._writes)
        if self._keeper:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        for threads in (self._readers, self._packer, self._merger):
            threads.shutdown(wait=True)
        await asyncio.to_thread(self._session.close)

    def problem(self) -> str | None:
        """Returns why Cassandra could not be used last time, or None."""
        return self._session.problem

    @property
    def waiting_bytes(self) -> int:
        """The bytes of batches that are being written."""
        return self._waiting_bytes

    async def append_batch(self, batch: Batch, *, wait: bool) -> Awaitable[Written]:
        """Begins to write a batch; see Store.append_batch."""
        while self._waiting_bytes >= self._queue_bytes:
            if not wait:
                raise ResourceExhaustedError(
                    f"{self._waiting_bytes} bytes of batches wait to be stored; try again later",
                    retry_after=0.5,
                )
            self._room.clear()
            await self._room.wait()
        self._waiting_bytes += batch.nbytes
        task = asyncio.create_task(self._write(batch))
        self._writes.add(task)
        task.add_done_callback(functools.partial(self._write_ended, batch.nbytes))
        return task

    async def list_machines(self) -> list[MachineRecord]:
        """Returns all machines, ordered by id."""
        rows = await self._on_reader(lambda: _flatten(self._session.rows_for_each("machines", _EACH_BUCKET)))
        return sorted((_record(row) for row in rows), key=lambda machine: machine.machine_id)

    async def summaries(self) -> list[SeriesSummary]:
        """Returns the summary of each series."""
        rows = await self._on_reader(lambda: _flatten(self._session.rows_for_each("latest", _EACH_BUCKET)))
        return [
            SeriesSummary(row.machine_id, sensor, row.first_us or latest.at_us, latest.at_us, latest.value, latest.rank)
            for row in rows
            for sensor, latest in latest_of(row.sensors, row.ranked).items()
        ]

    async def register(self, machine: MachineRecord, registered: OnRegistered | None = None) -> MachineRecord:
        """Registers a machine; see Store.register."""
        return await complete_registration(self._register(machine), registered)

    async def _register(self, machine: MachineRecord) -> MachineRecord:
        place = (_bucket(machine.machine_id), machine.machine_id)
        await self._ensure_machine(machine.machine_id)
        content = (machine.machine_type, machine.site, machine.registered_us, machine.request_id)
        applied = (await self._session.execute("register", (*content, *place)))[0].applied
        stored = _record((await self._session.execute("machine", place))[0])
        if not applied and stored != machine:
            require_same_registration(stored, machine)
        await self._session.execute("set_registered", (_slot(), self._replica, machine.machine_id))
        return stored

    async def sent_only_by(self, machine_id: str, owner: str) -> bool:
        """Whether one owner owns all sources of a machine; see Store.sent_only_by."""
        rows = await self._session.execute("latest_of", (_bucket(machine_id), machine_id))
        owned: set[str] = set()  # sources that the owner is known to own
        for sensor in (rows[0].sensors or ()) if rows else ():
            for source in await self._on_reader(functools.partial(self._sources_of, machine_id, sensor)):
                if source not in owned and await self._read_owner(source) != owner:
                    return False
                owned.add(source)
        return bool(owned)

    def _sources_of(self, machine_id: str, sensor: str) -> set[str]:
        """Returns the sources whose readings of a series are kept.

        The set contains an empty name if not all sources can be determined.
        """
        series = CassandraSeries(self._session, machine_id, sensor)
        pieces = series.pieces(0, 2**62)
        sources = {"" if len(pieces) > MOST_RANKED else piece.rank[1] for piece in pieces}
        with contextlib.suppress(SegmentsChangedError):
            for piece in pieces[:MOST_RANKED]:
                ranks = series.load([piece])[0].ranks
                sources |= {source for _, source in ranks.sources} if ranks is not None else set()
            return sources if not series.damaged else sources | {""}
        return {""}

    async def record_events(self, events: Sequence[Event]) -> None:
        """Stores events, and those of the plant as a whole in the journal too."""
        rows: list[tuple[Any, ...]] = []
        journal: list[tuple[Any, ...]] = []
        # Numbers follow the clock of this replica. An event recorded twice is in the journal twice; its first number
        # counts
        first = max(self._last_number + 1, now_us())
        self._last_number = first + len(events) - 1
        for number, event in enumerate(events, start=first):
            content = (event.at_us, event.id, event.data)
            rows.append((event.kind, event.machine_id, *content, 0 if event.kind in KEPT_KINDS else EVENT_TTL))
            if not event.machine_id:
                journal.append((event.kind, number, *content))
        await self._execute_all("add_event", rows)
        await self._execute_all("add_to_journal", journal)

    async def journal(self, kind: str, after: int, before: int, limit: int) -> list[Event]:
        """Returns events of the plant as a whole; see Store.journal."""
        rows = await self._session.execute("journal", (kind, after, before, limit))
        return [Event(row.kind, "", row.at_us, row.id, row.data, row.number) for row in rows]

    async def events(  # noqa: PLR0917
        self, kind: str, machine_id: str, start_us: int, end_us: int, limit: int, before: tuple[int, str] | None = None
    ) -> list[Event]:
        """Returns the newest events of a machine; see Store.events."""
        end = (min(end_us, 2**62), "")
        parameters = (kind, machine_id, start_us, *(min(end, before) if before else end), limit)
        return [Event(*row) for row in await self._session.execute("events", parameters)]

    async def read(
        self, machine_id: str, sensor: str, start_us: int, end_us: int, *, points: int = 0, last: int = 0
    ) -> Points:
        """Returns readings of a series; see Store.read."""
        series = CassandraSeries(self._session, machine_id, sensor)

        def query() -> Points:
            for _ in range(_READ_ATTEMPTS):
                with contextlib.suppress(SegmentsChangedError):
                    return series_reader.read(series, start_us, end_us, points=points, last=last)
            raise UnavailableError("the requested segments are being merged; try again", retry_after=0.2)

        return await self._on_reader(query)

    async def read_several(
        self, machine_id: str, sensors: Sequence[str], start_us: int, end_us: int, *, points: int = 0, last: int = 0
    ) -> list[Points]:
        """Returns readings of the first of several series; see Store.read_several."""
        some = sensors[:_SERIES_AT_ONCE]
        reading = (self.read(machine_id, sensor, start_us, end_us, points=points, last=last) for sensor in some)
        return list(await asyncio.gather(*reading))

    async def changes(self) -> list[Change]:
        """Returns what other replicas have published within the last seconds."""
        now = _slot()
        slots = [(slot,) for slot in range(now - _SLOTS_BACK, now + 1)]
        rows = await self._on_reader(lambda: _flatten(self._session.rows_for_each("changes", slots)))
        by_machine: dict[str, Change] = {}
        for row in rows:
            if row.replica == self._replica:
                continue
            earlier = by_machine.get(row.machine_id)
            machine = earlier.machine if earlier else None
            if row.registered and machine is None:
                machine = await self._read_machine(row.machine_id)
            sensors = dict(earlier.sensors) if earlier else {}
            for sensor, reading in latest_of(row.sensors, row.ranked).items():
                sensors[sensor] = max(sensors.get(sensor, reading), reading, key=_by_time_and_rank)
            by_machine[row.machine_id] = Change(row.machine_id, machine, 0, sensors)
        return list(by_machine.values())

    async def find_machine(self, machine_id: str) -> Change | None:
        """Returns a machine with its latest readings, or None."""
        machine = await self._read_machine(machine_id)
        if machine is None:
            return None
        rows = await self._session.execute("latest_of", (_bucket(machine_id), machine_id))
        if not rows:
            return Change(machine_id, machine, 0, {})
        return Change(machine_id, machine, rows[0].first_us or 0, latest_of(rows[0].sensors, rows[0].ranked))

    # Writing

    async def _write(self, batch: Batch) -> Written:
        source = await self._source_for(batch)
        received = await self._received_sequences(batch, source)
        if sequence_ranges.contains(received, batch.sequence):
            return Written(0, batch.readings)
        rows = await asyncio.get_running_loop().run_in_executor(self._packer, self._rows, batch, source.order)
        await asyncio.gather(
            self._execute_all("add_segment", rows),
            self._ensure_days({(row[0], row[1], row[2]) for row in rows}),
            *(self._ensure_machine(machine_id) for machine_id in {series.machine_id for series in batch.series}),
        )
        # Recorded last, so that the sequence counts as stored only when all of the batch is:
        await self._session.execute("add_received", (batch.source_id, batch.sequence // BLOCK, batch.sequence))
        sequence_ranges.record(received, batch.sequence)
        await self._publish_latest(batch, source.order)
        for row in rows:
            self._compactor.record_segment((row[0], row[1], row[2]))
        return Written(batch.readings, 0, (source.order, batch.source_id, batch.sequence))

    def _write_ended(self, nbytes: int, task: "asyncio.Task[Written]") -> None:
        """Frees the room of a batch and wakes those that wait for it."""
        self._writes.discard(task)
        self._waiting_bytes -= nbytes
        self._room.set()
        if not task.cancelled():
            task.exception()  # retrieves the exception, which the caller also gets if it still waits

    def _rows(self, batch: Batch, order: int) -> list[tuple[Any, ...]]:
        """Packs a batch into rows of segments, one for each series and UTC day."""
        rows: list[tuple[Any, ...]] = []
        for series in batch.series:
            timestamps, values = series.timestamps, series.values
            if not series.increasing:
                timestamps, values = merge_parts([(timestamps, values)])
            days = timestamps // DAY_US
            cuts = np.flatnonzero(np.diff(days)) + 1
            for at, column in zip(np.split(timestamps, cuts), np.split(values, cuts), strict=True):
                key = (series.machine_id, series.sensor, int(at[0] // DAY_US), int(at[0]))
                rows.append(
                    (*key, order, batch.source_id, batch.sequence, int(at[-1]), len(at), pack(at, column), self._ttl)
                )
        return rows

    async def _source_for(self, batch: Batch) -> _Source:
        """Returns the source of a batch, and registers it if it is new.

        Raises:
            PermissionDeniedError: If the source belongs to another caller.
        """
        source = self._sources.get(batch.source_id)
        if source is None or time.monotonic() - source.looked_up > _LOOK_UP_EVERY:
            source = await self._once(("source", batch.source_id), lambda: self._look_up(batch.source_id))
        if batch.source_id in self._sources:
            self._sources.move_to_end(batch.source_id)
        if owner_after(source.owner, batch.owner, batch.source_id) != source.owner:
            await self._session.execute("add_owner", (batch.source_id, batch.owner))
            source.owner = await self._read_owner(batch.source_id)  # may be another caller that was faster
            owner_after(source.owner, batch.owner, batch.source_id)
        return source

    async def _read_owner(self, source_id: str) -> str:
        rows = await self._session.execute("owner", (source_id,))
        return rows[0].owner if rows else ""

    async def _look_up(self, source_id: str) -> _Source:
        """Reads a source from the tables, or adds it, and renews the expiry of its rows."""
        rows = await self._session.execute("source", (source_id,))
        owner = await self._read_owner(source_id)
        if rows:
            await self._session.execute("keep_source", (source_id, rows[0].first_us))
        else:
            await self._session.execute("add_source", (source_id, now_us()))
            rows = await self._session.execute("source", (source_id,))
        if owner:
            await self._session.execute("keep_owner", (source_id, owner))
        source, order = self._sources.get(source_id), rows[0].first_us
        if source is None or source.order != order:
            source = self._sources[source_id] = _Source(order, owner, 0.0)
        source.owner, source.looked_up = owner, time.monotonic()
        if len(self._sources) > _SOURCES:
            self._sources.popitem(last=False)
        return source

    async def _received_sequences(self, batch: Batch, source: _Source) -> list[sequence_ranges.Range]:
        """Returns the stored sequences of the block that contains the batch's sequence."""
        block = batch.sequence // BLOCK
        sequences = source.received.get(block)
        if sequences is None:
            key = (batch.source_id, block)
            sequences = await self._once(("received", *key), lambda: self._look_up_received(source, key))
        return sequences

    async def _look_up_received(self, source: _Source, key: tuple[str, int]) -> list[sequence_ranges.Range]:
        sequences: list[sequence_ranges.Range] = []
        for row in await self._on_reader(lambda: list(self._session.rows("received", key))):
            sequence_ranges.record(sequences, row.sequence)
        source.received[key[1]] = sequences
        while len(source.received) > _BLOCKS:
            del source.received[next(iter(source.received))]
        return sequences

    async def _publish_latest(self, batch: Batch, order: int) -> None:
        """Publishes the latest reading of each series and the earliest of each machine, for the other replicas."""
        newest: dict[tuple[str, int], tuple[dict[str, tuple[int, float]], dict[str, bytes]]] = {}
        firsts: dict[str, int] = {}
        shown: dict[tuple[str, str], Latest] = {}
        for series in batch.series:
            first = int(series.timestamps.min())
            firsts[series.machine_id] = min(first, firsts.get(series.machine_id, first))
            position = _newest_index(series)
            at, value = int(series.timestamps[position]), float(series.values[position])
            latest = Latest(at, value, (order, batch.source_id, batch.sequence))
            key = (series.machine_id, series.sensor)
            # A late reading could replace one of the same time that was published in the same slot
            if key in self._shown and _by_time_and_rank(self._shown[key]) > _by_time_and_rank(latest):
                continue
            shown[key] = latest
            sensors, ranked = newest.setdefault((series.machine_id, at), ({}, {}))
            sensors[series.sensor] = (at, value)
            ranked[series.sensor] = encode(order, batch.source_id, batch.sequence, at, value)
        slot = _slot()
        work: list[Awaitable[Any]] = []
        for (machine_id, at), cells in newest.items():
            bucket = _bucket(machine_id)
            work.append(self._session.execute("set_latest", (at + 1, *cells, bucket, machine_id)))
            work.append(self._session.execute("set_change", (at + 1, *cells, slot, self._replica, machine_id)))
        for machine_id, first in firsts.items():
            if first < self._firsts.get(machine_id, _FIRST):
                row = (_FIRST - first, first, _bucket(machine_id), machine_id)
                work.append(self._session.execute("set_first", row))
                self._firsts[machine_id] = first
                if len(self._firsts) > _KNOWN:
                    self._firsts.popitem(last=False)
        await asyncio.gather(*work)
        self._shown |= shown
        while len(self._shown) > _KNOWN:
            self._shown.popitem(last=False)

    async def _ensure_machine(self, machine_id: str) -> None:
        """Adds a machine to the tables unless that is known to have been done."""
        if ("machine", machine_id) in self._noted:
            return
        await self._session.execute("add_machine", (_bucket(machine_id), machine_id))
        self._mark_ensured(("machine", machine_id))

    async def _ensure_days(self, days: Iterable[tuple[str, str, int]]) -> None:
        """Adds days of series to the tables unless that is known to have been done."""
        new = [day for day in days if ("day", *day) not in self._noted]
        # One day longer than the readings, because those at the end of the day expire later
        await self._execute_all("add_day", [(*day, self._ttl + 86_400 if self._ttl else 0) for day in new])
        for day in new:
            self._mark_ensured(("day", *day))

    def _mark_ensured(self, key: tuple[Any, ...]) -> None:
        self._noted[key] = None
        if len(self._noted) > _KNOWN:
            self._noted.popitem(last=False)

    async def _read_machine(self, machine_id: str) -> MachineRecord | None:
        rows = await self._session.execute("machine", (_bucket(machine_id), machine_id))
        return _record(rows[0]) if rows else None

    async def _execute_all(self, name: str, rows: Iterable[tuple[Any, ...]]) -> None:
        await asyncio.gather(*(self._session.execute(name, row) for row in rows))

    async def _on_reader(self, query: Callable[[], T]) -> T:
        started = time.perf_counter()
        status = "error"
        try:
            result = await asyncio.get_running_loop().run_in_executor(self._readers, query)
            status = "ok"
        finally:
            track_db_query("read", time.perf_counter() - started, status)
        return result

    async def _run_housekeeping(self) -> None:
        """Merges small segments, for as long as the store runs."""
        while True:
            await asyncio.sleep(HOUSEKEEPING)
            metrics.ingestion_recent_bytes.set(self._waiting_bytes)
            settled = now_us() - SETTLED_US
            self._compactor.mark_completed_days(settled // DAY_US)
            try:
                while place := self._compactor.pop_due():
                    over = settled >= (place[2] + 1) * DAY_US
                    merging = functools.partial(merge_day, self._session, place, self._ttl, over=over)
                    merged = await asyncio.get_running_loop().run_in_executor(self._merger, merging)
                    metrics.ingestion_segments_merged_total.inc(merged)
            except AurumError as error:
                logger.warning("merging small segments failed and is retried: %s", error.message)
            except Exception:
                logger.exception("merging small segments failed and is retried")


def _record(row: Any) -> MachineRecord:
    """Returns a machine from a row, of which only the id may be set."""
    return MachineRecord(
        row.machine_id, row.machine_type or "", row.site or "", row.registered_us or 0, row.request_id or ""
    )


def _bucket(machine_id: str) -> int:
    return zlib.crc32(machine_id.encode()) % BUCKETS


def _slot() -> int:
    return int(time.time() // SLOT_SECONDS)


def _by_time_and_rank(latest: Latest) -> tuple[int, Rank]:
    return latest.at_us, latest.rank


def _newest_index(series: Series) -> int:
    """Returns the index of the latest reading."""
    last = len(series.timestamps) - 1
    return last if series.increasing else last - int(series.timestamps[::-1].argmax())


def _flatten(rows: Iterable[Iterable[Any]]) -> list[Any]:
    return [row for part in rows for row in part]
