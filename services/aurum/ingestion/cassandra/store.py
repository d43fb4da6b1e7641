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

from aurum.ingestion import series_reader
from aurum.ingestion.cassandra.compaction import Compactor, merge_day
from aurum.ingestion.cassandra.latest import encode, latest_of
from aurum.ingestion.cassandra.schema import BLOCK, BUCKETS, EVENT_TTL, SLOT_SECONDS
from aurum.ingestion.cassandra.series import CassandraSeries, SegmentsChangedError
from aurum.ingestion.cassandra.session import CassandraOptions, CassandraSession
from aurum.ingestion.cassandra.single_flight import SingleFlight
from aurum.ingestion.downsample import merge
from aurum.ingestion.store import (
    DAY_US,
    KEPT_KINDS,
    MOST_RANKED,
    Change,
    Event,
    Latest,
    MachineRecord,
    Points,
    Registered,
    SeriesSummary,
    require_repeated,
    to_its_end,
)
from aurum.readings.batch import Batch, Series, now_us
from aurum.readings.ingest_stream import Written
from aurum.readings.source_owner import owner_after
from aurum.runtime import metrics
from aurum.runtime.errors import AurumError, ResourceExhaustedError, UnavailableError
from aurum.storage import ledger
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
_HOUSEKEEPING = 1.0  # seconds
_SERIES_AT_ONCE = 8  # series that are read at once
_READ_ATTEMPTS = 5  # attempts of a query while segments are being merged
_FIRST = 2**61  # µs; the write time of a first reading is this minus its time, so that the earliest one wins
_EACH_BUCKET = [(bucket,) for bucket in range(BUCKETS)]
_SETTLED_US = 3_600_000_000  # a day is complete this long after its end


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
    received: dict[int, list[ledger.Range]] = field(default_factory=dict)


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
        self._keeper = asyncio.create_task(self._keep_house(), name="store-housekeeping")

    async def close(self) -> None:
        if self._writes:
            await asyncio.wait(self._writes)
        if self._keeper:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        for threads in (self._readers, self._packer, self._merger):
            threads.shutdown(wait=True)
        await asyncio.to_thread(self._session.close)

    def problem(self) -> str | None:
        return self._session.problem

    @property
    def waiting_bytes(self) -> int:
        return self._waiting_bytes

    async def append(self, batch: Batch, *, wait: bool) -> Awaitable[Written]:
        while self._waiting_bytes >= self._queue_bytes:
            if not wait:
                raise ResourceExhaustedError(
                    f"{self._waiting_bytes} bytes of batches are on their way to the store; send again later",
                    retry_after=0.5,
                )
            self._room.clear()
            await self._room.wait()
        self._waiting_bytes += batch.nbytes
        task = asyncio.create_task(self._write(batch))
        self._writes.add(task)
        task.add_done_callback(functools.partial(self._written, batch.nbytes))
        return task

    async def machines(self) -> list[MachineRecord]:
        rows = await self._on_reader(lambda: _flat(self._session.each("machines", _EACH_BUCKET)))
        return sorted((_record(row) for row in rows), key=lambda machine: machine.machine_id)

    async def summaries(self) -> list[SeriesSummary]:
        rows = await self._on_reader(lambda: _flat(self._session.each("latest", _EACH_BUCKET)))
        return [
            SeriesSummary(row.machine_id, sensor, row.first_us or latest.at_us, latest.at_us, latest.value, latest.rank)
            for row in rows
            for sensor, latest in latest_of(row.sensors, row.ranked).items()
        ]

    async def register(self, machine: MachineRecord, registered: Registered | None = None) -> MachineRecord:
        return await to_its_end(self._register(machine), registered)

    async def _register(self, machine: MachineRecord) -> MachineRecord:
        place = (_bucket(machine.machine_id), machine.machine_id)
        await self._note_machine(machine.machine_id)
        content = (machine.machine_type, machine.site, machine.registered_us, machine.request_id)
        applied = (await self._session.execute("register", (*content, *place)))[0].applied
        found = _record((await self._session.execute("machine", place))[0])
        if not applied and found != machine:
            require_repeated(found, machine)
        await self._session.execute("set_registered", (_slot(), self._replica, machine.machine_id))
        return found

    async def sent_only_by(self, machine_id: str, owner: str) -> bool:
        rows = await self._session.execute("latest_of", (_bucket(machine_id), machine_id))
        known: set[str] = set()  # sources that the owner is known to own
        for sensor in (rows[0].sensors or ()) if rows else ():
            for source in await self._on_reader(functools.partial(self._sources_of, machine_id, sensor)):
                if source not in known and await self._owner(source) != owner:
                    return False
                known.add(source)
        return bool(known)

    def _sources_of(self, machine_id: str, sensor: str) -> set[str]:
        """Returns the sources whose readings of a series are kept.

        The set contains an empty name if not all sources can be determined.
        """
        series = CassandraSeries(self._session, machine_id, sensor)
        pieces = series.pieces(0, 2**62)
        found = {"" if len(pieces) > MOST_RANKED else piece.rank[1] for piece in pieces}
        with contextlib.suppress(SegmentsChangedError):
            for piece in pieces[:MOST_RANKED]:
                ranks = series.load([piece])[0].ranks
                found |= {source for _, source in ranks.sources} if ranks is not None else set()
            return found if not series.damaged else found | {""}
        return {""}

    async def record(self, events: Sequence[Event]) -> None:
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
        await self._all("add_event", rows)
        await self._all("add_to_journal", journal)

    async def journal(self, kind: str, after: int, before: int, limit: int) -> list[Event]:
        rows = await self._session.execute("journal", (kind, after, before, limit))
        return [Event(row.kind, "", row.at_us, row.id, row.data, row.number) for row in rows]

    async def events(  # noqa: PLR0917
        self, kind: str, machine_id: str, start_us: int, end_us: int, limit: int, before: tuple[int, str] | None = None
    ) -> list[Event]:
        end = (min(end_us, 2**62), "")
        asked = (kind, machine_id, start_us, *(min(end, before) if before else end), limit)
        return [Event(*row) for row in await self._session.execute("events", asked)]

    async def read(
        self, machine_id: str, sensor: str, start_us: int, end_us: int, *, points: int = 0, last: int = 0
    ) -> Points:
        series = CassandraSeries(self._session, machine_id, sensor)

        def query() -> Points:
            for _ in range(_READ_ATTEMPTS):
                with contextlib.suppress(SegmentsChangedError):
                    return series_reader.read(series, start_us, end_us, points=points, last=last)
            raise UnavailableError("the segments asked for are being merged; ask again", retry_after=0.2)

        return await self._on_reader(query)

    async def read_several(
        self, machine_id: str, sensors: Sequence[str], start_us: int, end_us: int, *, points: int = 0, last: int = 0
    ) -> list[Points]:
        some = sensors[:_SERIES_AT_ONCE]
        reading = (self.read(machine_id, sensor, start_us, end_us, points=points, last=last) for sensor in some)
        return list(await asyncio.gather(*reading))

    async def changes(self) -> list[Change]:
        now = _slot()
        slots = [(slot,) for slot in range(now - _SLOTS_BACK, now + 1)]
        rows = await self._on_reader(lambda: _flat(self._session.each("changes", slots)))
        found: dict[str, Change] = {}
        for row in rows:
            if row.replica == self._replica:
                continue
            known = found.get(row.machine_id)
            machine = known.machine if known else None
            if row.registered and machine is None:
                machine = await self._machine(row.machine_id)
            sensors = dict(known.sensors) if known else {}
            for sensor, reading in latest_of(row.sensors, row.ranked).items():
                sensors[sensor] = max(sensors.get(sensor, reading), reading, key=_by_time_and_rank)
            found[row.machine_id] = Change(row.machine_id, machine, 0, sensors)
        return list(found.values())

    async def find(self, machine_id: str) -> Change | None:
        machine = await self._machine(machine_id)
        if machine is None:
            return None
        rows = await self._session.execute("latest_of", (_bucket(machine_id), machine_id))
        if not rows:
            return Change(machine_id, machine, 0, {})
        return Change(machine_id, machine, rows[0].first_us or 0, latest_of(rows[0].sensors, rows[0].ranked))

    # Writing

    async def _write(self, batch: Batch) -> Written:
        source = await self._source(batch)
        received = await self._received(batch, source)
        if ledger.contains(received, batch.sequence):
            return Written(0, batch.readings)
        rows = await asyncio.get_running_loop().run_in_executor(self._packer, self._rows, batch, source.order)
        await asyncio.gather(
            self._all("add_segment", rows),
            self._note_days({(row[0], row[1], row[2]) for row in rows}),
            *(self._note_machine(machine_id) for machine_id in {series.machine_id for series in batch.series}),
        )
        # Recorded last, so that the sequence counts as stored only when all of the batch is:
        await self._session.execute("add_received", (batch.source_id, batch.sequence // BLOCK, batch.sequence))
        ledger.record(received, batch.sequence)
        await self._show(batch, source.order)
        for row in rows:
            self._compactor.note((row[0], row[1], row[2]))
        return Written(batch.readings, 0, (source.order, batch.source_id, batch.sequence))

    def _written(self, nbytes: int, task: "asyncio.Task[Written]") -> None:
        self._writes.discard(task)
        self._waiting_bytes -= nbytes
        self._room.set()
        if not task.cancelled():
            task.exception()  # retrieves the exception, which the caller also gets if it still waits

    def _rows(self, batch: Batch, order: int) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        for series in batch.series:
            timestamps, values = series.timestamps, series.values
            if not series.increasing:
                timestamps, values = merge([(timestamps, values)])
            days = timestamps // DAY_US
            cuts = np.flatnonzero(np.diff(days)) + 1
            for at, column in zip(np.split(timestamps, cuts), np.split(values, cuts), strict=True):
                key = (series.machine_id, series.sensor, int(at[0] // DAY_US), int(at[0]))
                rows.append(
                    (*key, order, batch.source_id, batch.sequence, int(at[-1]), len(at), pack(at, column), self._ttl)
                )
        return rows

    async def _source(self, batch: Batch) -> _Source:
        """Returns the source of a batch, and registers it if it is new.

        Raises:
            PermissionDeniedError: If the source belongs to another caller.
        """
        known = self._sources.get(batch.source_id)
        if known is None or time.monotonic() - known.looked_up > _LOOK_UP_EVERY:
            known = await self._once(("source", batch.source_id), lambda: self._look_up(batch.source_id))
        if batch.source_id in self._sources:
            self._sources.move_to_end(batch.source_id)
        if owner_after(known.owner, batch.owner, batch.source_id) != known.owner:
            await self._session.execute("add_owner", (batch.source_id, batch.owner))
            known.owner = await self._owner(batch.source_id)  # may be another caller that was faster
            owner_after(known.owner, batch.owner, batch.source_id)
        return known

    async def _owner(self, source_id: str) -> str:
        rows = await self._session.execute("owner", (source_id,))
        return rows[0].owner if rows else ""

    async def _look_up(self, source_id: str) -> _Source:
        """Reads a source from the tables, or adds it, and renews the expiry of its rows."""
        rows = await self._session.execute("source", (source_id,))
        owner = await self._owner(source_id)
        if rows:
            await self._session.execute("keep_source", (source_id, rows[0].first_us))
        else:
            await self._session.execute("add_source", (source_id, now_us()))
            rows = await self._session.execute("source", (source_id,))
        if owner:
            await self._session.execute("keep_owner", (source_id, owner))
        known, order = self._sources.get(source_id), rows[0].first_us
        if known is None or known.order != order:
            known = self._sources[source_id] = _Source(order, owner, 0.0)
        known.owner, known.looked_up = owner, time.monotonic()
        if len(self._sources) > _SOURCES:
            self._sources.popitem(last=False)
        return known

    async def _received(self, batch: Batch, source: _Source) -> list[ledger.Range]:
        """Returns the stored sequences of the block that contains the batch's sequence."""
        block = batch.sequence // BLOCK
        known = source.received.get(block)
        if known is None:
            asked = (batch.source_id, block)
            known = await self._once(("received", *asked), lambda: self._look_up_received(source, asked))
        return known

    async def _look_up_received(self, source: _Source, asked: tuple[str, int]) -> list[ledger.Range]:
        found: list[ledger.Range] = []
        for row in await self._on_reader(lambda: list(self._session.rows("received", asked))):
            ledger.record(found, row.sequence)
        source.received[asked[1]] = found
        while len(source.received) > _BLOCKS:
            del source.received[next(iter(source.received))]
        return found

    async def _show(self, batch: Batch, order: int) -> None:
        """Publishes the latest reading of each series and the earliest of each machine, for the other replicas."""
        newest: dict[tuple[str, int], tuple[dict[str, tuple[int, float]], dict[str, bytes]]] = {}
        firsts: dict[str, int] = {}
        shown: dict[tuple[str, str], Latest] = {}
        for series in batch.series:
            first = int(series.timestamps.min())
            firsts[series.machine_id] = min(first, firsts.get(series.machine_id, first))
            position = _newest(series)
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
        for (machine_id, at), told in newest.items():
            bucket = _bucket(machine_id)
            work.append(self._session.execute("set_latest", (at + 1, *told, bucket, machine_id)))
            work.append(self._session.execute("set_change", (at + 1, *told, slot, self._replica, machine_id)))
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

    async def _note_machine(self, machine_id: str) -> None:
        if ("machine", machine_id) in self._noted:
            return
        await self._session.execute("add_machine", (_bucket(machine_id), machine_id))
        self._remember(("machine", machine_id))

    async def _note_days(self, days: Iterable[tuple[str, str, int]]) -> None:
        new = [day for day in days if ("day", *day) not in self._noted]
        # One day longer than the readings, because those at the end of the day expire later
        await self._all("add_day", [(*day, self._ttl + 86_400 if self._ttl else 0) for day in new])
        for day in new:
            self._remember(("day", *day))

    def _remember(self, key: tuple[Any, ...]) -> None:
        self._noted[key] = None
        if len(self._noted) > _KNOWN:
            self._noted.popitem(last=False)

    async def _machine(self, machine_id: str) -> MachineRecord | None:
        rows = await self._session.execute("machine", (_bucket(machine_id), machine_id))
        return _record(rows[0]) if rows else None

    async def _all(self, name: str, rows: Iterable[tuple[Any, ...]]) -> None:
        await asyncio.gather(*(self._session.execute(name, row) for row in rows))

    async def _on_reader(self, query: Callable[[], T]) -> T:
        started = time.perf_counter()
        status = "error"
        try:
            result = await asyncio.get_running_loop().run_in_executor(self._readers, query)
            status = "ok"
        finally:
            metrics.track_db_query("read", time.perf_counter() - started, status)
        return result

    async def _keep_house(self) -> None:
        """Merges small segments, for as long as the store runs."""
        while True:
            await asyncio.sleep(_HOUSEKEEPING)
            metrics.ingestion_recent_bytes.set(self._waiting_bytes)
            settled = now_us() - _SETTLED_US
            self._compactor.note_days_that_are_over(settled // DAY_US)
            try:
                while place := self._compactor.next_due():
                    over = settled >= (place[2] + 1) * DAY_US
                    merging = functools.partial(merge_day, self._session, place, self._ttl, over=over)
                    merged = await asyncio.get_running_loop().run_in_executor(self._merger, merging)
                    metrics.ingestion_segments_merged_total.inc(merged)
            except AurumError as error:
                logger.warning("small segments could not be merged: %s", error.message)
            except Exception:
                logger.exception("small segments could not be merged, which is tried again")


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


def _newest(series: Series) -> int:
    """Returns the index of the latest reading."""
    last = len(series.timestamps) - 1
    return last if series.increasing else last - int(series.timestamps[::-1].argmax())


def _flat(rows: Iterable[Iterable[Any]]) -> list[Any]:
    return [row for part in rows for row in part]
