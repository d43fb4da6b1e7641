"""The threads that answer queries of the tables. Each query has its own connection and sees one state of the tables."""

import asyncio
import contextlib
import functools
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from aurum.runtime.errors import UnavailableError
from aurum.storage import metrics
from aurum.storage.database import close, connect

T = TypeVar("T")

_READERS = 4  # threads, and concurrent queries


class Readers:
    """A pool of connections for queries.

    A query for which nobody waits any more is interrupted. Its connection is used again when the query has ended.

    Args:
        path: The database.
        timeout: The seconds within which a query must be answered.
    """

    def __init__(self, path: Path, timeout: float) -> None:
        self._timeout = timeout
        self._threads = ThreadPoolExecutor(_READERS, thread_name_prefix="store-reader")
        self._readers = [_Reader(path) for _ in range(_READERS)]
        self._free: asyncio.LifoQueue[_Reader] = asyncio.LifoQueue()
        for reader in self._readers:
            self._free.put_nowait(reader)

    async def run_query(
        self, operation: str, query: Callable[[sqlite3.Connection], T], timeout: float | None = None
    ) -> T:
        """Runs a query and returns its result.

        Args:
            operation: Its name in metrics.
            query: The query.
            timeout: Overrides the default timeout, in seconds.

        Raises:
            UnavailableError: If the query takes too long.
        """
        started = time.perf_counter()
        status = "error"
        try:
            reader = await self._free.get()
            task = asyncio.get_running_loop().run_in_executor(self._threads, reader.run, query)
            task.add_done_callback(functools.partial(self._release, reader))
            try:
                result = await asyncio.wait_for(asyncio.shield(task), timeout or self._timeout)
            except (TimeoutError, asyncio.CancelledError):
                if not task.done():  # else the reader may be answering another query by now
                    reader.interrupt()
                raise
            status = "ok"
            return result
        except TimeoutError as error:
            raise UnavailableError(f"the store did not answer within {timeout or self._timeout} s") from error
        finally:
            metrics.track_db_query(operation, time.perf_counter() - started, status)

    def close(self) -> None:
        """Waits for the queries in progress, then closes the connections."""
        self._threads.shutdown(wait=True)
        for reader in self._readers:
            reader.close()

    def _release(self, reader: "_Reader", task: asyncio.Future[T]) -> None:
        task.exception()  # marks the exception as retrieved, in case nobody waits
        self._free.put_nowait(reader)


class _Reader:
    """A connection for queries, used by one query at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = connect(path, read_only=True)

    def run(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Runs a query in a transaction, on one thread at a time."""
        try:
            self._connection.execute("BEGIN")
            return query(self._connection)
        finally:
            self._end_transaction()

    def interrupt(self) -> None:
        """Interrupts the query in progress, if any. May be called on any thread."""
        with contextlib.suppress(sqlite3.ProgrammingError):  # closed at this moment, see _end
            self._connection.interrupt()

    def close(self) -> None:
        close(self._connection)

    def _end_transaction(self) -> None:
        """Ends the transaction.

        An interruption may hit the rollback too. The connection can then begin no other transaction, so it is
        replaced.
        """
        try:
            if self._connection.in_transaction:  # some errors end the transaction
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            replacement = connect(self._path, read_only=True)
            stuck, self._connection = self._connection, replacement
            close(stuck)
