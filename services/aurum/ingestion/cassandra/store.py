"""The store on Cassandra, for more than one replica of ingestion.

A replica keeps only caches. An acknowledged batch is a row in a quorum of Cassandra's replicas, in the slot of the time
at which it was written. Merging moves the readings of a slot into blocks and segments, see
aurum.ingestion.cassandra.merging.

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
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

from aurum.ingestion import series_reader
from aurum.ingestion.cassandra import summaries
from aurum.ingestion.cassandra.batch_rows import StoredBatch, encode_batch, encode_members
from aurum.ingestion.cassandra.block_cache import BlockCache
from aurum.ingestion.cassandra.follower import FOLLOW_SECONDS, Follower, current_slot, load_batches
from aurum.ingestion.cassandra.housekeeping import Housekeeping
from aurum.ingestion.cassandra.latest import latest_of
from aurum.ingestion.cassandra.open_slots import BatchKey, OpenSlot, OpenSlots
from aurum.ingestion.cassandra.reading_columns import ReadingColumns
from aurum.ingestion.cassandra.schema import (
    BUCKETS,
    CHANGES_SECONDS,
    EVENT_TTL,
    GROUPS,
    SLOT_SECONDS,
    group_of,
    slot_bucket,
)
from aurum.ingestion.cassandra.series import CassandraSeries, SegmentsChangedError, StoredSeries, read_unheld
from aurum.ingestion.cassandra.session import CassandraOptions, CassandraSession
from aurum.ingestion.cassandra.sources import Sources
from aurum.ingestion.series_index import SeriesIndex
from aurum.ingestion.store import (
    KEPT_KINDS,
    MOST_RANKED,
    Change,
    Event,
    Latest,
    MachineRecord,
    OnRegistered,
    OnStored,
    Points,
    SeriesSummary,
    complete_registration,
    machine_concerned,
    require_same_registration,
)
from aurum.readings.batch import Batch, SeriesKey, now_us
from aurum.readings.transport.ingest_stream import Written
from aurum.runtime.errors import AurumError, ResourceExhaustedError, UnavailableError
from aurum.storage import sequence_ranges
from aurum.storage.metrics import track_db_query
from aurum.storage.ranks import Rank

T = TypeVar("T")
logger = logging.getLogger(__name__)

_READERS = 8  # threads that answer queries
_CHANGES_BACK = 3  # slots of changes that are read back, to tolerate clocks that differ a little
_SERIES_AT_ONCE = 8  # series that are read at once
_READ_ATTEMPTS = 5  # attempts of a query while readings are being merged
_LATE_SECONDS = 30.0  # seconds after the end of a slot at which a write into it is repeated in the present one
_OPEN_SECONDS = 30.0  # seconds after which a slot in use is registered again
_OPEN_BYTES = 96_000_000
_LARGE = 200_000  # bytes of a batch that is compressed on a thread
_BATCHES_AT_ONCE = 16
_MOST_SLOTS = 720  # slots that wait to be merged; with more, batches are refused
_WRITTEN_AT_ONCE = 100  # gateways of machines
_EACH_BUCKET = [(bucket,) for bucket in range(BUCKETS)]


class CassandraStore:
    """A Store that several processes share."""

    shared = True

    def __init__(
        self, options: CassandraOptions, queue_bytes: int, retention: float, open_bytes: int = _OPEN_BYTES
    ) -> None:
        """Connects to Cassandra.

        Args:
            options: How to connect.
            queue_bytes: The bytes of batches that may be on their way to Cassandra.
            retention: The days that readings are kept; 0 for ever.
            open_bytes: The memory for readings in open slots.

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
        self._in_progress: dict[BatchKey, asyncio.Future[None]] = {}
        self._slots = OpenSlots(self.series, open_bytes)
        self._follower = Follower(self._session, self._slots, self._in_progress, self._stored_elsewhere)
        self._cache = BlockCache(self._session)
        self._sources = Sources(self._session, self._slots, self._follower, self._on_reader)
        self._housekeeping = Housekeeping(self._session, self.series, self._slots, self._replica, self._ttl)
        self._on_stored: OnStored | None = None
        self._opened: dict[int, tuple[float, asyncio.Future[Any]]] = {}  # slots, when and how they were opened
        self._waiting_bytes = 0
        self._last_number = 0  # of the recorded events
        self._room = asyncio.Event()
        self._writes: set[asyncio.Task[Written]] = set()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Reads the open slots, and starts the background work."""
        await self._follower.refresh()
        self._tasks = [
            asyncio.create_task(self._follow(), name="store-follower"),
            asyncio.create_task(self._housekeeping.run(), name="store-housekeeping"),
        ]

    async def close(self) -> None:
        """Waits for the batches in progress, then closes the connections."""
        if self._writes:
            await asyncio.wait(self._writes)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for close in (self._follower.close, self._housekeeping.close, self._readers.shutdown, self._packer.shutdown):
            await asyncio.to_thread(close)
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
        if len(self._slots) > _MOST_SLOTS:
            raise ResourceExhaustedError(
                f"{len(self._slots)} slots of batches wait to be merged, more than {_MOST_SLOTS}; see the log of "
                "ingestion for why merging fails, and try again later",
                retry_after=5.0,
            )
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
        machines = {row.machine_id: _record(row) for row in rows}
        for summary in await self.summaries():
            if summary.machine_id not in machines:
                machines[summary.machine_id] = MachineRecord(summary.machine_id, "", "", 0, "")
        return sorted(machines.values(), key=lambda machine: machine.machine_id)

    async def summaries(self) -> list[SeriesSummary]:
        """Returns the summary of each series; see Store.summaries."""
        await self._follower.refresh()
        columns, unheld = self._open_readings()
        found = await self._on_reader(lambda: self._summaries(range(GROUPS), columns, unheld))
        earlier = await self._on_reader(lambda: _flatten(self._session.rows_for_each("latest", _EACH_BUCKET)))
        return _with_earlier(found, earlier)

    async def register(self, machine: MachineRecord, registered: OnRegistered | None = None) -> MachineRecord:
        """Registers a machine; see Store.register."""
        return await complete_registration(self._register(machine), registered)

    async def _register(self, machine: MachineRecord) -> MachineRecord:
        place = (_bucket(machine.machine_id), machine.machine_id)
        await self._session.execute("add_machine", place)
        content = (machine.machine_type, machine.site, machine.registered_us, machine.request_id)
        applied = (await self._session.execute("register", (*content, *place)))[0].applied
        stored = _record((await self._session.execute("machine", place))[0])
        if not applied and stored != machine:
            require_same_registration(stored, machine)
        await self._session.execute("set_registered", (_changes_slot(), self._replica, machine.machine_id))
        return stored

    async def gateways(self) -> dict[str, str]:
        """Returns the gateway of each machine; see Store.gateways."""
        rows = await self._on_reader(lambda: _flatten(self._session.rows_for_each("gateways", _EACH_BUCKET)))
        return {row.machine_id: row.gateway for row in rows}

    async def record_gateways(self, gateways: Mapping[str, str]) -> None:
        """Stores the gateways of machines; see Store.record_gateways."""
        rows = [(_bucket(machine_id), machine_id, gateway) for machine_id, gateway in gateways.items()]
        for start in range(0, len(rows), _WRITTEN_AT_ONCE):
            await self._execute_all("set_gateway", rows[start : start + _WRITTEN_AT_ONCE])

    async def sent_only_by(self, machine_id: str, owner: str) -> bool:
        """Whether one owner owns all sources of a machine; see Store.sent_only_by."""
        found = await self._find_summaries(machine_id)
        columns, unheld = self._open_readings()
        owned: set[str] = set()  # sources that the owner is known to own
        for summary in found:
            key = (machine_id, summary.sensor)
            for source in await self._on_reader(functools.partial(self._sources_of, key, columns, unheld)):
                if source not in owned and await self._sources.owner_of(source) != owner:
                    return False
                owned.add(source)
        return bool(owned)

    def _sources_of(self, key: SeriesKey, columns: list[ReadingColumns], unheld: list[OpenSlot]) -> set[str]:
        """Returns the sources whose readings of a series are kept.

        The set contains an empty name if not all sources can be determined.
        """
        series = self._stored_series(key, columns, unheld)
        with contextlib.suppress(SegmentsChangedError):
            pieces = series.pieces(0, 2**62)
            sources = {"" if len(pieces) > MOST_RANKED else piece.rank[1] for piece in pieces}
            for piece in pieces[:MOST_RANKED]:
                ranks = series.load([piece])[0].ranks
                sources |= {source for _, source in ranks.sources} if ranks is not None else set()
            return sources if not series.segments.damaged else sources | {""}
        return {""}

    async def record_events(self, events: Sequence[Event]) -> None:
        """Stores events, and those of the plant as a whole in the journal and by the machine that they concern too."""
        rows: list[tuple[Any, ...]] = []
        journal: list[tuple[Any, ...]] = []
        about: list[tuple[Any, ...]] = []
        # Numbers follow the clock of this replica. An event recorded twice is in the journal twice; its first number
        # counts
        first = max(self._last_number + 1, now_us())
        self._last_number = first + len(events) - 1
        for number, event in enumerate(events, start=first):
            content = (event.at_us, event.id, event.data)
            ttl = 0 if event.kind in KEPT_KINDS else EVENT_TTL
            rows.append((event.kind, event.machine_id, *content, ttl))
            if not event.machine_id:
                journal.append((event.kind, number, *content))
                if machine_id := machine_concerned(event.id):
                    about.append((event.kind, machine_id, *content, ttl))
        await self._execute_all("add_event", rows)
        await self._execute_all("add_event_about", about)
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

    async def events_about(  # noqa: PLR0917
        self, kind: str, about: str, start_us: int, end_us: int, limit: int, before: tuple[int, str] | None = None
    ) -> list[Event]:
        """Returns the newest events of the plant as a whole that concern a machine; see Store.events_about."""
        end = (min(end_us, 2**62), "")
        parameters = (kind, about, start_us, *(min(end, before) if before else end), limit)
        rows = await self._session.execute("events_about", parameters)
        return [Event(row.kind, "", row.at_us, row.id, row.data) for row in rows]

    async def read(
        self, machine_id: str, sensor: str, start_us: int, end_us: int, *, points: int = 0, last: int = 0
    ) -> Points:
        """Returns readings of a series; see Store.read."""
        await self._follower.refresh()
        columns, unheld = self._open_readings()

        def query() -> Points:
            for _ in range(_READ_ATTEMPTS):
                with contextlib.suppress(SegmentsChangedError):
                    series = self._stored_series((machine_id, sensor), columns, unheld)
                    return series_reader.read(series, start_us, end_us, points=points, last=last)
            raise UnavailableError("the requested readings are being merged; try again", retry_after=0.2)

        return await self._on_reader(query)

    async def read_several(
        self, machine_id: str, sensors: Sequence[str], start_us: int, end_us: int, *, points: int = 0, last: int = 0
    ) -> list[Points]:
        """Returns readings of the first of several series; see Store.read_several."""
        keys = [(machine_id, sensor) for sensor in sensors[:_SERIES_AT_ONCE]]
        return await self.read_keys(keys, start_us, end_us, points=points, last=last)

    async def read_keys(
        self, keys: Sequence[SeriesKey], start_us: int, end_us: int, *, points: int = 0, last: int = 0
    ) -> list[Points]:
        """Returns readings of the first of several series; see Store.read_keys."""
        some = keys[:_SERIES_AT_ONCE]
        return list(
            await asyncio.gather(*(self.read(*key, start_us, end_us, points=points, last=last) for key in some))
        )

    def follow(self, on_stored: OnStored) -> None:
        """Passes on each batch that another process stores from now on; see Store.follow."""
        self._on_stored = on_stored

    async def changes(self) -> list[Change]:
        """Returns registrations by other replicas within the last seconds, after passing on their new batches.

        Also returns the readings that replicas of the previous version have published.
        """
        await self._follower.refresh()
        now = _changes_slot()
        slots = [(slot,) for slot in range(now - _CHANGES_BACK, now + 1)]
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
        found = await self._find_summaries(machine_id)
        if machine is None and not found:
            return None
        first = min((summary.first_us for summary in found), default=0)
        sensors = {each.sensor: Latest(each.last_us, each.last_value, each.rank) for each in found}
        return Change(machine_id, machine, first, sensors)

    async def _find_summaries(self, machine_id: str) -> list[SeriesSummary]:
        """Returns the summaries of the series of a machine."""
        await self._follower.refresh()
        columns, unheld = self._open_readings()
        found = await self._on_reader(lambda: self._summaries([group_of(machine_id)], columns, unheld))
        earlier = await self._session.execute("latest_of", (_bucket(machine_id), machine_id))
        return [each for each in _with_earlier(found, earlier) if each.machine_id == machine_id]

    def _summaries(
        self, groups: Sequence[int], columns: list[ReadingColumns], unheld: list[OpenSlot]
    ) -> list[SeriesSummary]:
        """Returns the summaries of the series of some groups. Blocks."""
        wanted = set(groups)
        parts: list[summaries.Summaries] = []
        for slot in unheld:
            keys = sorted(slot.keys)
            for start in range(0, len(keys), _BATCHES_AT_ONCE):
                held = ReadingColumns()
                for stored in load_batches(self._session, slot.number, keys[start : start + _BATCHES_AT_ONCE])[0]:
                    held.add_batch(self.series, stored.batch, stored.rank)
                parts += [summaries.of_readings(part) for group, part in held.packed(self.series) if group in wanted]
        for each in columns:
            parts += [summaries.of_readings(part) for group, part in each.packed(self.series) if group in wanted]
        # After the open slots, whose readings have a summary before they are removed from them
        parts += [part for _, part in summaries.read_groups(self._session, self.series, groups)]
        return summaries.as_list(self.series, summaries.join(parts)) if parts else []

    def _open_readings(self) -> tuple[list[ReadingColumns], list[OpenSlot]]:
        """Returns the readings in open slots, and the slots whose readings are not in memory. For the event loop."""
        slots = self._slots.slots()
        columns = [slot.columns for slot in slots if slot.columns is not None and slot.keys]
        return columns, [slot for slot in slots if slot.columns is None]

    def _stored_series(self, key: SeriesKey, columns: list[ReadingColumns], unheld: list[OpenSlot]) -> StoredSeries:
        """Returns the readings of a series for one query. Blocks."""
        number = self.series.number_of(key)
        if unheld:
            columns = [*columns, read_unheld(self._session, self.series, unheld, key)]
            number = self.series.number_of(key)
        found = [columns_.of_series(number) for columns_ in columns] if number is not None else []
        readings = [each for each in found if each is not None]
        return StoredSeries(CassandraSeries(self._session, *key), self._cache, readings)

    def _stored_elsewhere(self, stored: StoredBatch) -> None:
        """Passes on a batch of another replica."""
        self._sources.record(stored.batch.source_id, stored.batch.sequence)
        if self._on_stored is not None:
            self._on_stored(stored.batch, stored.rank)

    async def _follow(self) -> None:
        """Follows the open slots, for as long as the store runs."""
        while True:
            await asyncio.sleep(FOLLOW_SECONDS)
            try:
                await self._follower.refresh()
            except AurumError as error:
                logger.warning("reading the batches of other replicas failed and is retried: %s", error.message)
            except Exception:
                logger.exception("reading the batches of other replicas failed and is retried")

    # Writing

    async def _write(self, batch: Batch) -> Written:
        source = await self._sources.source_of(batch)
        key = (batch.source_id, batch.sequence)
        while (same := self._in_progress.get(key)) is not None:
            await asyncio.wait([same])
        done = self._in_progress[key] = asyncio.get_running_loop().create_future()
        try:
            received = await self._sources.received(batch, source)
            if sequence_ranges.contains(received, batch.sequence):
                return Written(0, batch.readings)
            slot = await self._insert(batch, source.order)
            rank = (source.order, *key)
            self._slots.add(StoredBatch(slot, batch, rank))
            sequence_ranges.record(received, batch.sequence)
            return Written(batch.readings, 0, rank)
        finally:
            del self._in_progress[key]
            done.set_result(None)

    async def _insert(self, batch: Batch, order: int) -> int:
        """Writes the row of a batch. Returns its slot."""
        if len(batch.data) > _LARGE:
            data = await asyncio.get_running_loop().run_in_executor(self._packer, encode_batch, batch)
        else:
            data = encode_batch(batch)
        content = (batch.source_id, batch.sequence, order, encode_members(batch.keys.machine_ids), data)
        while True:
            slot = current_slot()
            row = (slot, slot_bucket(batch.source_id), *content)
            await asyncio.gather(self._open_slot(slot), self._session.execute("add_batch", row))
            if time.time() - (slot + 1) * SLOT_SECONDS < _LATE_SECONDS:
                return slot
            # The slot may have been closed before the row was written

    async def _open_slot(self, slot: int) -> None:
        """Registers a slot unless this was done recently."""
        now = time.monotonic()
        opened = self._opened.get(slot)
        if opened is None or now - opened[0] > _OPEN_SECONDS:
            self._opened = {number: each for number, each in self._opened.items() if now - each[0] <= _OPEN_SECONDS}
            opened = self._opened[slot] = now, asyncio.ensure_future(self._session.execute("add_slot", (slot,)))
        try:
            await asyncio.shield(opened[1])
        except BaseException:
            if self._opened.get(slot) is opened:
                del self._opened[slot]
            raise

    def _write_ended(self, nbytes: int, task: "asyncio.Task[Written]") -> None:
        """Frees the room of a batch and wakes those that wait for it."""
        self._writes.discard(task)
        self._waiting_bytes -= nbytes
        self._room.set()
        if not task.cancelled():
            task.exception()  # retrieves the exception, which the caller also gets if it still waits

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


def _record(row: Any) -> MachineRecord:
    """Returns a machine from a row, of which only the id may be set."""
    return MachineRecord(
        row.machine_id, row.machine_type or "", row.site or "", row.registered_us or 0, row.request_id or ""
    )


def _bucket(machine_id: str) -> int:
    return zlib.crc32(machine_id.encode()) % BUCKETS


def _changes_slot() -> int:
    return int(time.time() // CHANGES_SECONDS)


def _by_time_and_rank(latest: Latest) -> tuple[int, Rank]:
    return latest.at_us, latest.rank


def _with_earlier(found: list[SeriesSummary], rows: Iterable[Any]) -> list[SeriesSummary]:
    """Adds the latest readings that versions before 4 of the tables have."""
    by_series = {(each.machine_id, each.sensor): each for each in found}
    for row in rows:
        for sensor, latest in latest_of(row.sensors, row.ranked).items():
            first = row.first_us or latest.at_us
            key = (row.machine_id, sensor)
            known = by_series.get(key)
            if known is None or (latest.at_us, latest.rank) > (known.last_us, known.rank):
                first = min(first, known.first_us) if known else first
                by_series[key] = SeriesSummary(*key, first, latest.at_us, latest.value, latest.rank)
            elif first < known.first_us:
                by_series[key] = replace(known, first_us=first)
    return list(by_series.values())


def _flatten(rows: Iterable[Iterable[Any]]) -> list[Any]:
    return [row for part in rows for row in part]
