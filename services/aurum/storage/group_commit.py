"""One thread that writes to a SQLite database and commits what has gathered in one go: one fsync for many writers."""

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from aurum.runtime import metrics
from aurum.runtime.errors import AurumError, ResourceExhaustedError, UnavailableError
from aurum.storage.database import close, connect

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
logger = logging.getLogger(__name__)

_GROUP_ITEMS = 1024  # most pieces of work in one transaction


@dataclass(slots=True)
class _Item:
    work: Callable[[sqlite3.Connection], Any]
    nbytes: int
    done: "Future[Any]"


class GroupCommitWriter:
    """Runs pieces of work, in their order, each in a savepoint, and answers when they are durable.

    max_bytes: of work that waits; more is refused, or waits when asked to. on_rollback: called on the writer's thread
    after a group was lost, to forget what was remembered about it.
    """

    def __init__(self, path: Path, name: str, max_bytes: int, on_rollback: Callable[[], None] = lambda: None) -> None:
        self._path = path
        self._name = name
        self._max_bytes = max_bytes
        self._on_rollback = on_rollback
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._waiting_bytes = 0
        self._room = asyncio.Event()
        self._room.set()
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self.problem: str | None = None
        self._thread = threading.Thread(target=self._write, name=name, daemon=True)
        self._thread.start()

    @property
    def waiting_bytes(self) -> int:
        return self._waiting_bytes

    async def submit(self, work: Work[T], nbytes: int, *, wait: bool = False) -> "asyncio.Future[T]":
        """Queues work; the future is done when it is durable. Without `wait`, refuses when the queue is full."""
        while not self._room.is_set():
            if not wait:
                raise ResourceExhaustedError(
                    f"the {self._name} queue is full ({self._max_bytes} bytes); send again later", retry_after=0.5
                )
            await self._room.wait()
        if self._closed:
            raise UnavailableError("the store is closing")
        self._waiting_bytes += nbytes
        if self._waiting_bytes >= self._max_bytes:
            self._room.clear()
        item = _Item(work, nbytes, Future())
        self._queue.put(item)
        return cast("asyncio.Future[T]", asyncio.wrap_future(item.done))

    async def run(self, work: Work[T], nbytes: int = 0) -> T:
        """Queues work and waits until it is durable."""
        return await (await self.submit(work, nbytes))

    async def close(self) -> None:
        """Writes what is queued, then ends."""
        self._closed = True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _write(self) -> None:
        connection = connect(self._path)
        open_ = True
        while open_:
            items: list[_Item] = []
            first = self._queue.get()
            if first is None:
                break
            items.append(first)
            while len(items) < _GROUP_ITEMS:
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
                if item is None:
                    open_ = False
                    break
                items.append(item)
            self._commit(connection, items)
            self._loop.call_soon_threadsafe(self._release, sum(item.nbytes for item in items))
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        close(connection)

    def _release(self, nbytes: int) -> None:
        self._waiting_bytes -= nbytes
        if self._waiting_bytes < self._max_bytes:
            self._room.set()

    def _commit(self, connection: sqlite3.Connection, items: list[_Item]) -> None:
        started = time.perf_counter()
        outcomes: list[tuple[_Item, Any, Exception | None]] = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            for item in items:
                if not item.done.set_running_or_notify_cancel():
                    continue  # nobody waits for it any more
                result, refusal = _run_in_savepoint(connection, item.work)
                if refusal:
                    self._on_rollback()
                outcomes.append((item, result, refusal))
            connection.execute("COMMIT")
        except Exception as error:  # the disk, the file: nothing of the group is durable
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            self._on_rollback()
            self._fail(items, error)
            metrics.track_db_query("commit", time.perf_counter() - started, "error")
            return
        self.problem = None
        metrics.track_db_query("commit", time.perf_counter() - started)
        for item, result, refusal in outcomes:
            if refusal is None:
                item.done.set_result(result)
            else:
                item.done.set_exception(refusal)

    def _fail(self, items: list[_Item], error: Exception) -> None:
        self.problem = f"cannot be written: {error}"
        logger.error("%s: a group of %d could not be committed: %s", self._name, len(items), error)
        metrics.track_error(type(error).__name__)
        full = isinstance(error, sqlite3.OperationalError) and "full" in str(error)
        kind = ResourceExhaustedError if full else UnavailableError
        refusal = kind(f"the store cannot be written: {error}", retry_after=1.0)
        for item in items:
            if item.done.running() or item.done.set_running_or_notify_cancel():
                item.done.set_exception(refusal)


def _run_in_savepoint(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], Any]) -> tuple[Any, Any]:
    """(result, None), or (None, error) with the work undone; an error of the database itself is raised."""
    connection.execute("SAVEPOINT work")
    try:
        result = work(connection)
    except AurumError as error:
        connection.execute("ROLLBACK TO work")
        connection.execute("RELEASE work")
        return None, error
    connection.execute("RELEASE work")
    return result, None
