"""Group commit: one thread commits all queued items together, so that many writers share one disk sync."""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from aurum.runtime.errors import AurumError, ResourceExhaustedError, UnavailableError

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")
T = TypeVar("T")

_GROUP_ITEMS = 1024  # per commit
_GROUP_BYTES = 16_000_000  # per commit, unless the first item alone is larger


@dataclass(frozen=True, slots=True)
class _QueuedCall:
    work: Callable[[], Any]


@dataclass(slots=True)
class _Queued(Generic[Item]):
    item: Item | _QueuedCall
    nbytes: int
    done: "asyncio.Future[Any]"


class GroupCommit(Generic[Item, Result]):
    """Passes queued items, in order, to `commit` on its own thread.

    Args:
        name: The name of the thread and of the queue in errors.
        commit: Makes a group durable. Returns a result or an error for each item, or raises AurumError for all of
            them.
        max_bytes: The limit on queued bytes. At the limit, items are refused, or wait if asked to.
    """

    def __init__(
        self, name: str, commit: Callable[[list[Item]], Sequence[Result | AurumError]], max_bytes: int
    ) -> None:
        self._name = name
        self._commit = commit
        self._max_bytes = max_bytes
        self._queue: queue.SimpleQueue[_Queued[Item] | None] = queue.SimpleQueue()
        self._waiting_bytes = 0
        self._room = asyncio.Event()
        self._room.set()
        self.loop = asyncio.get_running_loop()
        self._closed = False
        self._thread = threading.Thread(target=self._commit_groups, name=name, daemon=True)
        self._thread.start()

    @property
    def waiting_bytes(self) -> int:
        """The size of the items that are queued or being committed."""
        return self._waiting_bytes

    async def submit(self, item: Item, nbytes: int, *, wait: bool = False) -> "asyncio.Future[Result]":
        """Queues an item. The returned future completes when the item is durable.

        Args:
            item: The item.
            nbytes: Its size, for the limit.
            wait: Whether to wait for room if the queue is full.

        Raises:
            ResourceExhaustedError: If the queue is full and `wait` is false.
            UnavailableError: If the queue is closing.
        """
        while not self._room.is_set():
            if not wait:
                raise ResourceExhaustedError(
                    f"the {self._name} queue is full ({self._max_bytes} bytes); send again later", retry_after=0.5
                )
            await self._room.wait()
        self._require_open()
        self._waiting_bytes += nbytes
        if self._waiting_bytes >= self._max_bytes:
            self._room.clear()
        return self._enqueue(item, nbytes)

    async def run(self, item: Item, nbytes: int = 0) -> Result:
        """Queues an item and waits until it is durable."""
        return await (await self.submit(item, nbytes))

    async def call(self, work: Callable[[], T]) -> T:
        """Runs `work` on the commit thread and returns its result.

        It runs after the items queued before it, and after those committed in the same group.
        """
        self._require_open()
        done: asyncio.Future[T] = self._enqueue(_QueuedCall(work), 0)
        return await done

    def _require_open(self) -> None:
        if self._closed:
            raise UnavailableError(f"the {self._name} queue is closing; send again later")

    def _enqueue(self, item: Any, nbytes: int) -> "asyncio.Future[Any]":
        queued: _Queued[Item] = _Queued(item, nbytes, self.loop.create_future())
        self._queue.put(queued)
        return queued.done

    async def close(self) -> None:
        """Commits the queued items, then ends the thread."""
        self._closed = True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _commit_groups(self) -> None:
        while self._commit_next():
            pass

    def _commit_next(self) -> bool:
        """Waits for a group and commits it. Returns False at the end of the queue.

        It is a method of its own so that no variable keeps a group in memory while the thread waits for the next one.
        """
        group, running = self._next_group()
        if not group:
            return False
        committed = iter(
            self._commit_group([queued.item for queued in group if not isinstance(queued.item, _QueuedCall)])
        )
        outcomes = [
            self._run_call(queued.item.work) if isinstance(queued.item, _QueuedCall) else next(committed)
            for queued in group
        ]
        self.loop.call_soon_threadsafe(self._complete, group, outcomes)
        return running

    def _next_group(self) -> tuple[list[_Queued[Item]], bool]:
        """Waits for an item. Returns it with those queued behind it, and whether more may come."""
        first = self._queue.get()
        if first is None:
            return [], False
        group, nbytes = [first], first.nbytes
        while len(group) < _GROUP_ITEMS and nbytes < _GROUP_BYTES:
            try:
                queued = self._queue.get_nowait()
            except queue.Empty:
                break
            if queued is None:
                return group, False
            group.append(queued)
            nbytes += queued.nbytes
        return group, True

    def _commit_group(self, items: list[Item]) -> Sequence[Result | AurumError]:
        if not items:
            return []
        try:
            return self._commit(items)
        except AurumError as error:
            return [error] * len(items)
        except Exception:
            logger.exception("the commit of %d items to %s failed", len(items), self._name)
            return [self._failure()] * len(items)

    def _run_call(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except AurumError as error:
            return error
        except Exception:
            logger.exception("a call on the thread of %s failed", self._name)
            return self._failure()

    def _failure(self) -> AurumError:
        return UnavailableError(f"the {self._name} failed; see the log of this service", retry_after=1.0)

    def _complete(self, group: list[_Queued[Item]], outcomes: Sequence[Any]) -> None:
        self._waiting_bytes -= sum(queued.nbytes for queued in group)
        if self._waiting_bytes < self._max_bytes:
            self._room.set()
        for queued, outcome in zip(group, outcomes, strict=True):
            if queued.done.done():
                continue  # the caller no longer waits
            if isinstance(outcome, AurumError):
                queued.done.set_exception(outcome)
            else:
                queued.done.set_result(outcome)
