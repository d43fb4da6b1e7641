"""The durable queue of a gateway: batches wait on disk, in their order, until the uplink has acknowledged them."""

import asyncio
import collections
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from aurum.readings.batch import Batch, now_us
from aurum.readings.ingest_stream import Written
from aurum.readings.uplink import Arrivals, Waiting
from aurum.runtime import metrics
from aurum.runtime.errors import InvalidArgumentError, ResourceExhaustedError
from aurum.storage.database import close, connect, prepare
from aurum.storage.group_commit import GroupCommitWriter

logger = logging.getLogger(__name__)

VERSION = 1
_SCHEMA = """
CREATE TABLE batches (id INTEGER PRIMARY KEY AUTOINCREMENT, source_id TEXT NOT NULL, sequence INTEGER NOT NULL,
    received_us INTEGER NOT NULL, traceparent TEXT NOT NULL, data BLOB NOT NULL, UNIQUE (source_id, sequence));
CREATE TABLE refused (id INTEGER PRIMARY KEY AUTOINCREMENT, refused_us INTEGER NOT NULL, reason TEXT NOT NULL,
    data BLOB NOT NULL);
"""
_OVERHEAD = 100  # bytes of a row besides its batch
_KEPT_REFUSED = 1000  # batches that ingestion refused and that are kept to be looked at
_EXPIRE_EVERY = 60.0  # seconds
_SAMPLES, _SAMPLE_SECONDS = 13, 5.0  # the last minute, for seconds_until_full


class Spool:
    """An Outbox on disk, bounded by bytes and by age."""

    def __init__(self, path: Path, max_bytes: int, max_age: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises NewerDatabaseError or sqlite3.DatabaseError, each with a sentence."""
        prepare(path, "spool", VERSION, _SCHEMA)
        self._path = path
        self._max_bytes = max_bytes
        self._max_age_us = int(max_age * 1e6)
        self._clock = clock
        self._connection = connect(path, read_only=True)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="spool-reader")
        self._bytes: int
        self._batches: int
        self._bytes, self._batches = self._connection.execute(
            "SELECT coalesce(sum(length(data) + ?), 0), count(*) FROM batches", (_OVERHEAD,)
        ).fetchone()
        self._samples: collections.deque[tuple[float, int]] = collections.deque(maxlen=_SAMPLES)
        self._arrivals = Arrivals()
        self._room = asyncio.Event()
        self._writer: GroupCommitWriter | None = None
        self._measure()

    async def start(self) -> None:
        # Its own bound is in bytes on disk; the queue before it needs to hold no more than a few commits.
        self._writer = GroupCommitWriter(self._path, "spool-writer", 32_000_000)

    async def close(self) -> None:
        if self._writer:
            await self._writer.close()
        self._reader.shutdown(wait=True)
        close(self._connection)

    def problem(self) -> str | None:
        return self._writer.problem if self._writer else "is not started"

    async def put(self, batch: Batch, data: bytes, traceparent: str, *, wait: bool) -> Awaitable[Written]:
        """Queues a batch; the result's await ends when it is durable. wait: for room, else ResourceExhaustedError."""
        size = len(data) + _OVERHEAD
        if size > self._max_bytes:
            raise InvalidArgumentError.of("batch", f"has {size} bytes, and the whole spool {self._max_bytes}")
        while self._bytes + size > self._max_bytes:
            if not wait:
                metrics.edge_spool_refused_total.inc()
                raise ResourceExhaustedError(
                    f"the gateway's spool is full ({self._bytes} of {self._max_bytes} bytes); send again later",
                    reason="SPOOL_FULL",
                    retry_after=1.0,
                )
            self._room.clear()
            await self._room.wait()
        self._bytes += size  # reserved now, so that many at once do not overfill it
        received = now_us()

        def insert(connection: sqlite3.Connection) -> bool:
            return (
                connection.execute(
                    "INSERT OR IGNORE INTO batches (source_id, sequence, received_us, traceparent, data) "
                    "VALUES (?, ?, ?, ?, ?)",
                    (batch.source_id, batch.sequence, received, traceparent, data),
                ).rowcount
                > 0
            )

        try:
            writing = await self._started.submit(insert, size, wait=wait)
        except BaseException:
            self._bytes -= size
            raise
        return asyncio.ensure_future(self._finish(batch, size, writing))

    async def after(self, last: int, batches: int) -> list[Waiting]:
        """Up to so many batches that follow the id `last`, in their order."""

        def read() -> list[Waiting]:
            rows = self._connection.execute(
                "SELECT id, traceparent, data FROM batches WHERE id > ? ORDER BY id LIMIT ?", (last, batches)
            )
            return [Waiting(*row) for row in rows]

        return await asyncio.get_running_loop().run_in_executor(self._reader, read)

    async def wait_for_more(self, seconds: float) -> None:
        """Returns when a batch has come, or after so many seconds."""
        await self._arrivals.wait(seconds)

    async def forwarded(self, last: int) -> None:
        """Forgets the batches up to the id `last`: they are durable further on."""
        batches = await self._delete("id <= ?", last)
        metrics.edge_spool_forwarded_total.inc(batches)

    async def refused(self, id_: int, reason: str) -> None:
        """Puts a batch aside that ingestion will never take."""

        def move(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO refused (refused_us, reason, data) SELECT ?, ?, data FROM batches WHERE id = ?",
                (now_us(), reason, id_),
            )
            connection.execute("DELETE FROM refused WHERE id <= (SELECT max(id) FROM refused) - ?", (_KEPT_REFUSED,))

        await self._started.run(move)
        metrics.edge_spool_dropped_total.labels("invalid").inc(await self._delete("id = ?", id_))

    async def expire(self) -> None:
        """Gives up batches that are too old, for as long as it runs."""
        while True:
            if batches := await self._delete("received_us < ?", now_us() - self._max_age_us):
                metrics.edge_spool_dropped_total.labels("expired").inc(batches)
                logger.error("%d batches were older than %.0f s and were given up", batches, self._max_age_us / 1e6)
            await asyncio.sleep(_EXPIRE_EVERY)

    async def observe(self) -> None:
        """Keeps the gauges current, for as long as it runs."""
        while True:
            self._measure()
            oldest = await asyncio.get_running_loop().run_in_executor(
                self._reader,
                lambda: self._connection.execute("SELECT received_us FROM batches ORDER BY id LIMIT 1").fetchone(),
            )
            age = max(0.0, (now_us() - oldest[0]) / 1e6) if oldest else 0.0
            metrics.edge_spool_oldest_age_seconds.set(age)
            await asyncio.sleep(_SAMPLE_SECONDS)

    def seconds_until_full(self) -> float:
        """At the rate of the last minute; infinite while the spool does not grow."""
        if len(self._samples) < 2:
            return float("inf")
        (then, before), (now, bytes_) = self._samples[0], self._samples[-1]
        growth = (bytes_ - before) / (now - then) if now > then else 0.0
        return (self._max_bytes - bytes_) / growth if growth > 0 else float("inf")

    @property
    def batches(self) -> int:
        """How many wait."""
        return self._batches

    @property
    def bytes(self) -> int:
        return self._bytes

    @property
    def _started(self) -> GroupCommitWriter:
        if self._writer is None:
            raise RuntimeError("the spool is not started")
        return self._writer

    async def _finish(self, batch: Batch, size: int, writing: Awaitable[bool]) -> Written:
        inserted = False
        try:
            inserted = await writing
        finally:
            if not inserted:
                self._bytes -= size
        if not inserted:
            return Written(0, batch.readings)
        self._batches += 1
        metrics.edge_spool_accepted_total.inc()
        self._arrivals.note()
        self._measure_size()
        return Written(batch.readings, 0)

    async def _delete(self, condition: str, value: int) -> int:
        def delete(connection: sqlite3.Connection) -> tuple[int, int]:
            found: tuple[int, int] = connection.execute(
                f"SELECT count(*), coalesce(sum(length(data) + {_OVERHEAD}), 0) FROM batches WHERE {condition}",  # noqa: S608
                (value,),
            ).fetchone()
            connection.execute(f"DELETE FROM batches WHERE {condition}", (value,))  # noqa: S608
            return found

        batches, bytes_ = await self._started.run(delete)
        self._batches -= batches
        self._bytes -= bytes_
        if batches:
            self._room.set()
            self._measure_size()
        return batches

    def _measure_size(self) -> None:
        metrics.edge_spool_bytes.set(self._bytes)
        metrics.edge_spool_batches.set(self._batches)

    def _measure(self) -> None:
        self._measure_size()
        self._samples.append((self._clock(), self._bytes))
        metrics.edge_spool_seconds_until_full.set(self.seconds_until_full())
