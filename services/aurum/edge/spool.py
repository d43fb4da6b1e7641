"""The durable queue of a gateway: batches stay in a log on disk until the uplink has acknowledged them.

The spool has two lanes. Each is sent in the order of arrival, by an uplink of its own. New batches enter the live
lane. Batches that could not be sent within two seconds move to the backlog lane, which drains at a bounded rate and
waits while the live lane is behind. After a long outage the current readings therefore arrive first. The store
accepts the sequences of a source in any order, so it ends up with the same readings.
"""

import asyncio
import collections
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import zstandard

from aurum.edge import metrics
from aurum.edge.dead_letters import DeadLetters, dead_letter_folder
from aurum.edge.spool_clock import SpoolClock, Uptime
from aurum.edge.token_bucket import TokenBucket
from aurum.readings.batch import Batch
from aurum.readings.source_owner import owner_after
from aurum.readings.transport.ingest_stream import Written
from aurum.readings.transport.refusals import Refused
from aurum.readings.transport.uplink import ArrivalSignal, QueuedBatch
from aurum.runtime.errors import AurumError, InvalidArgumentError, ResourceExhaustedError, UnavailableError
from aurum.storage import sequence_ranges
from aurum.storage.folder_lock import FolderLock
from aurum.storage.frames import decompress
from aurum.storage.group_commit import GroupCommit
from aurum.storage.segment_log import OVERHEAD, READ_BYTES, Record
from aurum.storage.state_file import read_state, write_state
from aurum.storage.wal import WriteAheadLog
from aurum.v1 import columns_pb2

logger = logging.getLogger(__name__)

_QUEUE_BYTES = 32_000_000  # bytes of batches that may wait for the log thread
_MAX_SOURCES = 10_000  # sources whose sequences are remembered to recognise duplicates
_LIVE_SECONDS = 2.0  # seconds; a batch that could not be sent within this time moves to the backlog
_MAX_LIVE_LAG = 0.5  # seconds; the backlog waits while the oldest live batch is older than this
_MAX_LIVE = 20_000  # batches in the live lane; above it, each arrival checks whether they are late
_MAX_RANGES = 1000  # ranges of acknowledged ids; above it, no further batches move to the backlog
_MAX_ID = 2**62  # greatest id of a batch
_EXPIRE_INTERVAL = 60.0  # seconds
_SAVE_CLOCK_INTERVAL = 10.0  # seconds
_SAMPLES, _SAMPLE_SECONDS = 61, 1.0  # the last minute, for seconds_until_full
_PLAIN, _ZSTD = b"\0", b"\1"
_NEW = -1  # stands in for the id of a batch that has not been written yet
_COMPRESS_MIN_BYTES = 256  # bytes


@dataclass(frozen=True, slots=True)
class SpoolOptions:
    """Options of the spool.

    Attributes:
        folder: The folder of the log.
        max_bytes: The limit on the size of the log files.
        max_age: The age in seconds at which a batch is dropped.
        drop_oldest: Whether a full spool drops its oldest batches instead of holding devices back.
        drain_bytes: The bytes of the backlog that are sent per second.
        live_first: Whether new batches overtake the backlog.
        min_free_bytes: The bytes of the disk that must stay free.
        dead_letter_bytes: The limit on the size of the dead letters.
    """

    folder: Path
    max_bytes: int = 1_000_000_000
    max_age: float = 7 * 86_400.0
    drop_oldest: bool = False
    drain_bytes: float = 8_000_000.0
    live_first: bool = True
    min_free_bytes: int = 0
    dead_letter_bytes: int = 200_000_000


@dataclass(frozen=True, slots=True)
class _PendingBatch:
    batch: Batch
    traceparent: str


@dataclass(slots=True)
class _SourceState:
    """A source: the caller that owns it, and the sequences that have arrived."""

    owner: str
    ranges: list[sequence_ranges.Range] = field(default_factory=list)


class Spool:
    """A durable queue of batches, bounded by bytes and by age. It must be used from one event loop."""

    def __init__(
        self, options: SpoolOptions, clock: Callable[[], float] = time.monotonic, uptime: Uptime | None = None
    ) -> None:
        """Opens the spool. Blocks while another process uses the folder.

        Args:
            options: The limits and the folder.
            clock: A monotonic clock in seconds.
            uptime: The clock by which the age of batches is measured.

        Raises:
            OSError: If the folder cannot be used.
        """
        self._options = options
        self._clock = clock
        self._folder_lock = FolderLock(options.folder)
        # A file is deleted only when all of its batches are acknowledged, so the spool needs several files
        file_bytes = max(65_536, min(16_000_000, options.max_bytes // 8))
        self._log = WriteAheadLog(
            options.folder, file_bytes, options.min_free_bytes, "AURUM_EDGE_SPOOL_MIN_FREE_BYTES", "the spool"
        )
        self._acked = _read_acked(options.folder / "acked.json")
        sequence_ranges.record(self._acked, 0, self._log.first_id - 1)
        if self._log.next_id <= self._acked[-1][1]:
            self._log.next_id = self._acked[-1][1] + 1
        self._saved_acked = self._acked[:]
        newest = self._log.read(self._log.next_id - 2, 1)
        self._age_clock = SpoolClock(options.folder / "clock.json", newest[-1].at_us if newest else 0, uptime)
        self._clock_saved_at = clock()
        self._waiting = self._log.next_id - sum(last - first + 1 for first, last in self._acked)
        self._backlog_through = (
            self._log.next_id - 1 if options.live_first else 0
        )  # ids up to this one belong to the backlog
        # Unacknowledged batches of the live lane: id → monotonic time of arrival
        self._live_batches: collections.OrderedDict[int, float] = collections.OrderedDict()
        self._queued_bytes = 0
        self._sources: collections.OrderedDict[str, _SourceState] = collections.OrderedDict()
        self._dead_letters = DeadLetters(dead_letter_folder(options.folder), options.dead_letter_bytes)
        self._dead_letters.import_refused_batches(options.folder / "refused")
        self._unwritten_letters: dict[
            int, Refused
        ] = {}  # refused permanently, but the dead letter could not be written yet
        self._compressor = zstandard.ZstdCompressor(level=1)
        self._decompressor = zstandard.ZstdDecompressor()
        self._drain_bucket = TokenBucket(options.drain_bytes, options.drain_bytes, clock)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="spool-reader")
        self._writer: GroupCommit[_PendingBatch, int] | None = None
        self._space_freed = asyncio.Event()
        self._samples: collections.deque[tuple[float, int]] = collections.deque(maxlen=_SAMPLES)
        self.live = Lane(self, live=True)
        self.backlog = Lane(self, live=False)
        self._update_gauges()

    async def start(self) -> None:
        """Starts the thread that writes the log. Must be called before batches are put or sent."""
        self._writer = GroupCommit("spool-log", self._append, _QUEUE_BYTES)

    async def close(self) -> None:
        """Writes what is queued, saves the state, and releases the folder."""
        if self._writer:
            await self._running_writer.call(self._save_acked)
            await self._running_writer.call(self._save_clock)
            await self._writer.close()
        self._reader.shutdown(wait=True)
        self._log.close()
        self._folder_lock.close()

    @property
    def folder(self) -> Path:
        """The folder of the spool, which this process owns."""
        return self._options.folder

    @property
    def max_bytes(self) -> int:
        """The limit on the size of the spool. A single batch may not be larger either."""
        return self._options.max_bytes

    def problem(self) -> str | None:
        """Returns why the spool cannot be written, or None."""
        return self._log.problem if self._writer else "is not started"

    @property
    def batches(self) -> int:
        """The number of batches that are not acknowledged yet."""
        return self._waiting

    @property
    def bytes_on_disk(self) -> int:
        """The size of the log files."""
        return self._log.bytes_on_disk

    async def put(self, batch: Batch, traceparent: str, *, wait: bool) -> Awaitable[Written]:
        """Queues a batch. The returned awaitable completes when the batch is durable.

        Args:
            batch: The batch to store.
            traceparent: The trace context that is sent with it.
            wait: Whether to wait for room if the spool is full.

        Raises:
            InvalidArgumentError: If the batch is larger than the whole spool.
            ResourceExhaustedError: If the spool is full and `wait` is false.
        """
        size = len(batch.data) + OVERHEAD
        if size > self._options.max_bytes:
            raise InvalidArgumentError.for_field(
                "batch", f"has {size} bytes; the spool holds at most {self._options.max_bytes}"
            )
        while self._log.bytes_on_disk + self._queued_bytes + size > self._options.max_bytes:
            if self._options.drop_oldest and await self._drop_oldest():
                continue
            if not wait:
                metrics.edge_spool_refused_total.inc()
                raise ResourceExhaustedError(
                    f"the gateway's spool is full ({self._log.bytes_on_disk} of {self._options.max_bytes} bytes); "
                    f"send again later",
                    reason="SPOOL_FULL",
                    retry_after=1.0,
                )
            self._space_freed.clear()
            with metrics.edge_spool_waiting_writes.track_inprogress():
                await self._space_freed.wait()
        self._queued_bytes += size  # reserved now, so that concurrent calls do not overfill the spool
        try:
            writing = await self._running_writer.submit(_PendingBatch(batch, traceparent), size, wait=wait)
        except BaseException:
            self._queued_bytes -= size
            raise
        return asyncio.ensure_future(self._await_written(batch, size, writing))

    async def run_expiry(self) -> None:
        """Drops batches that are too old, periodically until cancelled."""
        while True:
            await self.drop_expired()
            await asyncio.sleep(_EXPIRE_INTERVAL)

    async def drop_expired(self) -> None:
        """Drops batches that are older than `max_age` by the spool's own clock."""
        before = self._age_clock.now_us() - int(self._options.max_age * 1e6)
        while records := await self._read(self._done_through, READ_BYTES):
            old = [record.id for record in records if record.at_us < before]
            dropped = self._drop(old, "expired")
            if dropped:
                logger.error("dropped %d batches that were older than %.0f s", dropped, self._options.max_age)
            if len(old) < len(records) or not dropped:
                break
            await self._trim()

    async def run_maintenance(self) -> None:
        """Updates the gauges, retries dead letters, and saves the state, once per second until cancelled."""
        while True:
            await asyncio.to_thread(self._log.check_space)
            await self.retry_dead_letters()
            self._update_gauges()
            oldest = await self._read(self._done_through, 1) if self._waiting else []
            age = max(0.0, (self._age_clock.now_us() - oldest[0].at_us) / 1e6) if oldest else 0.0
            metrics.edge_spool_oldest_age_seconds.set(age)
            if self._acked != self._saved_acked:
                await self._running_writer.call(self._save_acked)
            if self._clock() - self._clock_saved_at >= _SAVE_CLOCK_INTERVAL:
                self._clock_saved_at = self._clock()
                await self._running_writer.call(self._save_clock)
            await asyncio.sleep(_SAMPLE_SECONDS)

    def seconds_until_full(self) -> float:
        """Returns the seconds until the spool is full at the growth rate of the last minute.

        Returns infinity if the spool does not grow.
        """
        if len(self._samples) < 2:
            return float("inf")
        (then, before), (now, bytes_) = self._samples[0], self._samples[-1]
        growth = (bytes_ - before) / (now - then) if now > then else 0.0
        return max(0.0, (self._options.max_bytes - bytes_) / growth) if growth > 0 else float("inf")

    # For the lanes

    async def next_live(self, last: int, max_batches: int) -> list[QueuedBatch]:
        """Returns up to `max_batches` batches of the live lane that follow the id `last`."""
        self._move_live_to_backlog()
        return await self._read_waiting(
            max(last, self._backlog_through, self._done_through), self._log.next_id - 1, max_batches
        )

    async def next_of_backlog(self, last: int, max_batches: int) -> list[QueuedBatch]:
        """Returns up to `max_batches` batches of the backlog that follow the id `last`.

        Waits while the live lane is behind, and as long as the drain rate requires.
        """
        while self._live_lag > _MAX_LIVE_LAG and self._backlog_through:
            self._move_live_to_backlog()
            await asyncio.sleep(0.02)
        batches = await self._read_waiting(max(last, self._done_through), self._backlog_through, max_batches)
        await self._drain_bucket.take(sum(len(batch.data) for batch in batches))
        return batches

    def batches_in(self, *, live: bool) -> int:
        """Returns the number of batches that wait in a lane."""
        in_live = len(self._live_batches) if self._options.live_first else self._waiting
        return in_live if live else self._waiting - in_live

    async def acknowledge(self, ids: Sequence[int]) -> None:
        """Removes batches that ingestion has acknowledged."""
        metrics.edge_spool_forwarded_total.inc(self._mark_done(ids))
        await self._trim()

    async def set_aside(self, refused: Refused) -> None:
        """Writes a dead letter for a batch that ingestion refuses permanently or that cannot be unpacked.

        If the dead letter cannot be written, the batch stays in the spool, unsent. `run_maintenance` tries again.
        """
        if sequence_ranges.contains(self._acked, refused.id):
            return
        record = next((record for record in await self._read(refused.id - 1, 1) if record.id == refused.id), None)
        if record is not None:
            request = self._unpack(record.payload) or record.payload
            if not await self._running_writer.call(lambda: self._write_dead_letter(refused, request)):
                self._unwritten_letters[refused.id] = refused
                return
        self._unwritten_letters.pop(refused.id, None)
        self._drop([refused.id], "invalid")
        await self._trim()

    async def retry_dead_letters(self) -> None:
        """Refreshes the dead letters, and writes those that could not be written when their batches were refused."""
        await self._running_writer.call(self._dead_letters.refresh)
        for refused in list(self._unwritten_letters.values()):
            await self.set_aside(refused)

    @property
    def _running_writer(self) -> GroupCommit[_PendingBatch, int]:
        if self._writer is None:
            raise UnavailableError("the spool is not started")
        return self._writer

    @property
    def _live_lag(self) -> float:
        """The seconds that the oldest unacknowledged batch of the live lane has waited; 0 without any."""
        return self._clock() - next(iter(self._live_batches.values())) if self._live_batches else 0.0

    @property
    def _done_through(self) -> int:
        """The id up to which all batches are acknowledged or dropped."""
        return self._acked[0][1]

    async def _read(self, after: int, max_bytes: int, max_records: int = 1000) -> list[Record]:
        return await asyncio.get_running_loop().run_in_executor(
            self._reader, self._log.read, after, max_bytes, max_records
        )

    async def _read_waiting(self, after: int, through: int, max_batches: int) -> list[QueuedBatch]:
        """Returns unacknowledged batches with ids in (after, through]."""
        while after < through:
            records = [record for record in await self._read(after, READ_BYTES, max_batches) if record.id <= through]
            last = records[-1].id if records else through
            ends = [after, *(record.id for record in records), last + 1]
            lost = sum(self._drop_range(range(end + 1, start), "damaged") for end, start in itertools.pairwise(ends))
            if lost:
                logger.error("%d batches of the spool are damaged and were dropped", lost)
            batches: list[QueuedBatch] = []
            unpacked = 0
            for record in records:
                if unpacked >= READ_BYTES:  # a record may unpack to many times its size
                    break
                if sequence_ranges.contains(self._acked, record.id) or record.id in self._unwritten_letters:
                    continue
                request = self._unpack(record.payload)
                if request is None:
                    await self.set_aside(Refused(record.id, "UNREADABLE", "the record in the spool cannot be unpacked"))
                else:
                    batches.append(QueuedBatch(record.id, request))
                    unpacked += len(request)
            if batches:
                return batches
            after = last
        return []

    def _move_live_to_backlog(self) -> None:
        """Moves the live lane's batches to the backlog if the oldest could not be sent in time."""
        if self._options.live_first and self._live_lag > _LIVE_SECONDS and len(self._acked) < _MAX_RANGES:
            self._backlog_through = next(reversed(self._live_batches))
            self._live_batches.clear()
            self.backlog.arrival_signal.notify()

    def _mark_done(self, ids: Sequence[int]) -> int:
        newly_done = 0
        for id_ in ids:
            if not sequence_ranges.contains(self._acked, id_):
                sequence_ranges.record(self._acked, id_)
                self._live_batches.pop(id_, None)
                newly_done += 1
        self._waiting -= newly_done
        return newly_done

    def _drop(self, ids: Sequence[int], reason: str) -> int:
        dropped = self._mark_done(ids)
        metrics.edge_spool_dropped_total.labels(reason).inc(dropped)
        return dropped

    def _drop_range(self, ids: range, reason: str) -> int:
        """Drops a range of ids, in time that does not depend on its length. Returns how many were dropped."""
        if not ids:
            return 0
        first, last = ids.start, ids.stop - 1
        already_done = sum(max(0, min(end, last) - max(start, first) + 1) for start, end in self._acked)
        dropped = len(ids) - already_done
        if dropped:
            sequence_ranges.record(self._acked, first, last)
            self._waiting -= dropped
            for id_ in [*itertools.takewhile(lambda each: each <= last, self._live_batches)]:
                if id_ >= first:
                    del self._live_batches[id_]
            metrics.edge_spool_dropped_total.labels(reason).inc(dropped)
        return dropped

    async def _drop_oldest(self) -> bool:
        """Drops the batches of the oldest file. Returns False if there is only the file that is being written."""
        oldest = self._log.oldest_file()
        if oldest is None:
            return False
        if dropped := self._drop_range(oldest, "full"):
            logger.error("the spool is full: dropped its %d oldest batches", dropped)
        await self._trim()
        return True

    async def _trim(self) -> None:
        through = self._done_through
        if self._log.can_trim(through):
            await self._running_writer.call(lambda: self._log.trim(through))
            self._space_freed.set()
        self._update_size_gauges()

    async def _await_written(self, batch: Batch, size: int, writing: Awaitable[int]) -> Written:
        try:
            id_ = await writing
        finally:
            self._queued_bytes -= size
        if not id_:
            return Written(0, batch.readings)
        self._waiting += 1
        if self._options.live_first and id_ > self._backlog_through:
            self._live_batches[id_] = self._clock()
            if len(self._live_batches) > _MAX_LIVE:
                self._move_live_to_backlog()
        metrics.edge_spool_accepted_total.inc()
        self.live.arrival_signal.notify()
        self._update_size_gauges()
        return Written(batch.readings, 0)

    @property
    def _waiting_bytes(self) -> int:
        """The approximate size of unacknowledged batches. The log also has others, until their whole file is done."""
        records = max(1, self._log.next_id - self._log.first_id)
        return self._log.bytes_on_disk * self._waiting // records

    def _update_size_gauges(self) -> None:
        metrics.edge_spool_bytes.set(self._waiting_bytes)
        metrics.edge_spool_limit_bytes.set(self._options.max_bytes)
        metrics.edge_spool_disk_bytes.set(self._log.bytes_on_disk)
        metrics.edge_spool_batches.set(self._waiting)

    def _update_gauges(self) -> None:
        self._update_size_gauges()
        self._samples.append((self._clock(), self._waiting_bytes))
        metrics.edge_spool_seconds_until_full.set(self.seconds_until_full())
        metrics.edge_spool_live_lag_seconds.set(self._live_lag)

    # On the thread of the log

    def _append(self, pending_batches: list[_PendingBatch]) -> list[int | AurumError]:
        """Writes a group of batches.

        Returns for each batch its id, 0 if it is a duplicate, or the error that refuses it.
        """
        new_batches: dict[tuple[str, int], _PendingBatch] = {}
        outcomes: list[int | AurumError] = []
        for pending in pending_batches:
            batch = pending.batch
            key = (batch.source_id, batch.sequence)
            source = self._touch_source(batch.source_id)
            try:
                source.owner = owner_after(source.owner, batch.owner, batch.source_id)
            except AurumError as error:
                outcomes.append(error)
                continue
            is_new = key not in new_batches and not sequence_ranges.contains(source.ranges, batch.sequence)
            if is_new:
                new_batches[key] = pending
            outcomes.append(_NEW if is_new else 0)
        payloads = [self._pack(pending) for pending in new_batches.values()]
        ids = iter(self._log.write(payloads, self._age_clock.now_us()) if payloads else ())
        for source_id, sequence in new_batches:
            sequence_ranges.record(self._touch_source(source_id).ranges, sequence)
        return [next(ids) if outcome == _NEW else outcome for outcome in outcomes]

    def _touch_source(self, source_id: str) -> _SourceState:
        source = self._sources.setdefault(source_id, _SourceState(""))
        self._sources.move_to_end(source_id)
        if len(self._sources) > _MAX_SOURCES:
            self._sources.popitem(last=False)
        if len(source.ranges) > _MAX_RANGES:
            # A forgotten batch that arrives again is sent again, and ingestion recognises the duplicate
            del source.ranges[: _MAX_RANGES // 2]
        return source

    def _pack(self, pending: _PendingBatch) -> bytes:
        message = columns_pb2.BatchRequest(
            batch=pending.batch.data, traceparent=pending.traceparent
        ).SerializeToString()
        return _ZSTD + self._compressor.compress(message) if len(message) >= _COMPRESS_MIN_BYTES else _PLAIN + message

    def _unpack(self, payload: bytes) -> bytes | None:
        """Returns the request in a record, or None if it cannot be unpacked."""
        if payload[:1] == _PLAIN:
            return payload[1:]
        try:
            return decompress(self._decompressor, payload[1:]) if payload[:1] == _ZSTD else None
        except (zstandard.ZstdError, MemoryError):
            return None

    def _save_acked(self) -> None:
        """Saves the acknowledged ids without a sync.

        After a loss, batches are sent again, and ingestion recognises them.
        """
        ranges = self._acked[:]
        try:
            write_state(self._options.folder / "acked.json", ranges)
        except OSError as error:
            logger.warning("the acknowledged ids could not be saved; retrying in a second: %s", error)
            return
        self._saved_acked = ranges

    def _save_clock(self) -> None:
        try:
            self._age_clock.save()
        except OSError as error:
            logger.warning("the clock of the spool could not be saved; retrying later: %s", error)

    def _write_dead_letter(self, refused: Refused, request: bytes) -> bool:
        try:
            self._dead_letters.put(refused, request)
        except OSError as error:
            if refused.id not in self._unwritten_letters:
                logger.error("a dead letter could not be written; the batch stays in the spool: %s", error)
            return False
        return True


class Lane:
    """One lane of the spool as an Outbox.

    Attributes:
        arrival_signal: Notified when a batch arrives in the lane.
    """

    def __init__(self, spool: Spool, *, live: bool) -> None:
        self._spool = spool
        self._live = live
        self.arrival_signal = ArrivalSignal()

    @property
    def batches(self) -> int:
        """The number of batches that wait in the lane."""
        return self._spool.batches_in(live=self._live)

    async def batches_after(self, last: int, max_batches: int) -> list[QueuedBatch]:
        """Returns up to `max_batches` batches of the lane that follow the id `last`, in order."""
        if self._live:
            return await self._spool.next_live(last, max_batches)
        return await self._spool.next_of_backlog(last, max_batches)

    async def wait_for_more(self, seconds: float) -> None:
        """Returns when a batch may have arrived in the lane, or after `seconds`."""
        await self.arrival_signal.wait(seconds)

    async def acknowledge(self, ids: Sequence[int]) -> None:
        """Removes batches that ingestion has acknowledged."""
        await self._spool.acknowledge(ids)

    async def set_aside(self, refused: Refused) -> None:
        """Writes a dead letter for a batch that ingestion refuses permanently."""
        await self._spool.set_aside(refused)


def _read_acked(path: Path) -> list[sequence_ranges.Range]:
    """Returns the ranges that `_save_acked` wrote, or none if the file cannot be read. Batches are then sent again."""
    ranges: list[sequence_ranges.Range] = []
    try:
        for first, last in read_state(path) or ():
            if not 0 <= int(first) <= int(last) < _MAX_ID:
                raise ValueError(f"{first!r} to {last!r} is not a range of ids")
            sequence_ranges.record(ranges, int(first), int(last))
    except (ValueError, TypeError, OverflowError) as error:
        logger.warning("%s cannot be read; all batches in the spool are sent again: %s", path, error)
        return []
    return ranges
