"""The threads that answer questions to the tables: each question on a connection of its own, from one state of them."""

import asyncio
import contextlib
import functools
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from aurum.runtime import metrics
from aurum.runtime.errors import UnavailableError
from aurum.storage.database import close, connect

T = TypeVar("T")

_READERS = 4  # threads, and as many questions at a time


class Readers:
    """A question that nobody waits for any more is interrupted; its connection answers again when it has ended.

    timeout: seconds for an answer.
    """

    def __init__(self, path: Path, timeout: float) -> None:
        self._timeout = timeout
        self._threads = ThreadPoolExecutor(_READERS, thread_name_prefix="store-reader")
        self._readers = [_Reader(path) for _ in range(_READERS)]
        self._free: asyncio.LifoQueue[_Reader] = asyncio.LifoQueue()
        for reader in self._readers:
            self._free.put_nowait(reader)

    async def ask(self, operation: str, query: Callable[[sqlite3.Connection], T], timeout: float | None = None) -> T:
        """The answer of a query. operation: its name in metrics. Raises UnavailableError."""
        started = time.perf_counter()
        status = "error"
        try:
            reader = await self._free.get()
            task = asyncio.get_running_loop().run_in_executor(self._threads, reader.answer, query)
            task.add_done_callback(functools.partial(self._take_back, reader))
            try:
                result = await asyncio.wait_for(asyncio.shield(task), timeout or self._timeout)
            except (TimeoutError, asyncio.CancelledError):
                if not task.done():  # or the reader may answer somebody else by now
                    reader.interrupt()
                raise
            status = "ok"
            return result
        except TimeoutError as error:
            raise UnavailableError(f"the store did not answer within {timeout or self._timeout} s") from error
        finally:
            metrics.track_db_query(operation, time.perf_counter() - started, status)

    def close(self) -> None:
        """Waits for the answers that are being given."""
        self._threads.shutdown(wait=True)
        for reader in self._readers:
            reader.close()

    def _take_back(self, reader: "_Reader", task: asyncio.Future[T]) -> None:
        task.exception()  # whoever waits has it; if nobody does, nobody asks for it
        self._free.put_nowait(reader)


class _Reader:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = connect(path, read_only=True)

    def answer(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """On one thread at a time."""
        try:
            self._connection.execute("BEGIN")
            return query(self._connection)
        finally:
            self._end()

    def interrupt(self) -> None:
        """Ends the answer that is being given, if it is not given yet. On any thread."""
        with contextlib.suppress(sqlite3.ProgrammingError):  # closed at this moment, see _end
            self._connection.interrupt()

    def close(self) -> None:
        close(self._connection)

    def _end(self) -> None:
        """An interruption may meet the end of the transaction too. The connection can begin no other then, and another
        takes its place."""
        try:
            if self._connection.in_transaction:  # some errors have ended it
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            fresh = connect(self._path, read_only=True)
            stuck, self._connection = self._connection, fresh
            close(stuck)
