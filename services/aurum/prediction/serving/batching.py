"""Adaptive micro-batching: waiting requests are passed to the model in one call.

Requests that arrive during a call form the next batch. Before a call starts, it waits for another request as long as
the expected delay is less than the saving: the number of waiting requests times the mean time between arrivals, against
the fixed cost of a call. The fixed cost is the intercept of a line fitted to the duration of recent calls by their size
(similar to Clipper, Crankshaw et al., 2017, and BentoML's dispatcher). At low load requests do not wait.

A call that takes less than a few milliseconds costs as much again to hand to a thread and back. At low load such calls
are made on the event loop, while the thread has nothing to do.
"""

import asyncio
import collections
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from aurum.prediction import metrics
from aurum.runtime.errors import ResourceExhaustedError

T = TypeVar("T")
R = TypeVar("R")

_REMEMBERED = 64  # recent calls that the fixed cost is estimated from
_LEAST_CALLS = 8
_SMOOTHING = 0.1  # weight of the latest time between two arrivals, and of the latest duration of a call
_SHORT = 0.003  # seconds; longer calls are never made on the event loop
_RARE = 4.0  # times the fixed cost; requests that arrive in shorter intervals are better served in batches


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Limits of the batching.

    Attributes:
        most: Maximum number of items in a call.
        waiting: Maximum number of waiting items; further ones are refused.
        longest: Longest time in seconds that an item waits for others.
    """

    most: int = 256
    waiting: int = 4096
    longest: float = 0.005


@dataclass(slots=True)
class _PendingCall(Generic[T, R]):
    """A request that waits: its items, the future of its results, and when it arrived (monotonic seconds)."""

    items: Sequence[T]
    answer: "asyncio.Future[list[R]]"
    since: float


class MicroBatcher(Generic[T, R]):
    """Calls `work` on `thread` with the items of many callers at once. `work` returns one result per item, in order."""

    def __init__(
        self,
        work: Callable[[Sequence[T]], list[R]],
        thread: ThreadPoolExecutor,
        limits: BatchLimits | None = None,
        exclusive: "threading.Lock | None" = None,
    ) -> None:
        """Creates the batcher.

        Args:
            work: Computes the results.
            thread: Where it is called.
            limits: The limits.
            exclusive: Held during each call of `work`, by this batcher, and by others during computations that must not
                run at the same time. With it, short calls are made on the event loop. None: all are made on `thread`.
        """
        self._work = work
        self._thread = thread
        self._limits = limits or BatchLimits()
        self._queue: collections.deque[_PendingCall[T, R]] = collections.deque()
        self._count = 0
        self._arrived = asyncio.Event()
        self._exclusive = exclusive
        self._calls = _RecentCalls()
        self._fixed_cost = 0.0  # seconds
        self._per_item = float("inf")  # seconds that a call takes for each of its items, of late
        self._between = 1.0  # seconds between two arrivals
        self._last_arrival = 0.0
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, items: Sequence[T]) -> list[R]:
        """Returns the results for some items.

        Raises:
            ResourceExhaustedError: Too many items are waiting.
            Exception: Whatever `work` raises.
        """
        if not items:
            return []
        if self._count + len(items) > max(self._limits.waiting, len(items)):
            metrics.prediction_batch_refused_total.inc(len(items))
            raise ResourceExhaustedError(
                f"{self._count} predictions wait for the model, and at most {self._limits.waiting} may wait; try again "
                f"later",
                reason="MODEL_BUSY",
            )
        now = time.perf_counter()
        since_last = min(now - self._last_arrival, 1.0)
        self._between += _SMOOTHING * (since_last - self._between)
        self._last_arrival = now
        exclusive = self._exclusive
        if exclusive is not None and self._is_short(len(items)) and exclusive.acquire(blocking=False):
            try:
                return self._measured(items, now)
            finally:
                exclusive.release()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="micro-batching")
        waiting = _PendingCall[T, R](items, asyncio.get_running_loop().create_future(), now)
        self._queue.append(waiting)
        self._count += len(items)
        metrics.prediction_batch_waiting.inc(len(items))
        self._arrived.set()
        return await waiting.answer

    def close(self) -> None:
        """Stops forming batches. Callers that still wait are not answered."""
        if self._task is not None:
            self._task.cancel()

    def _is_short(self, count: int) -> bool:
        """Whether a call with so many items is short, and no other items wait or may be expected soon."""
        return not self._queue and count * self._per_item < _SHORT and self._between > _RARE * self._fixed_cost

    def _measured(self, items: Sequence[T], started: float) -> list[R]:
        metrics.prediction_batch_size.observe(len(items))
        results = self._work(items)
        self._note_call(len(items), time.perf_counter() - started)
        return results

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            await self._wait_for_more()
            taken = self._take_batch()
            if taken:
                await self._run_batch(taken)

    async def _wait_for_more(self) -> None:
        """Waits for more items as long as this saves time."""
        while self._count < self._limits.most:
            oldest = self._queue[0].since
            left = oldest + self._limits.longest - time.perf_counter()
            if left <= 0 or len(self._queue) * self._between >= self._fixed_cost:
                return
            self._arrived.clear()
            try:
                async with asyncio.timeout(min(left, 2 * self._between)):
                    await self._arrived.wait()
            except TimeoutError:
                self._arrived.set()
                return

    def _take_batch(self) -> list[_PendingCall[T, R]]:
        """Takes the requests for one call from the queue: at least one, and as many as fit. Drops cancelled ones."""
        taken: list[_PendingCall[T, R]] = []
        size = 0
        while self._queue and (not taken or size + len(self._queue[0].items) <= self._limits.most):
            waiting = self._queue.popleft()
            self._count -= len(waiting.items)
            metrics.prediction_batch_waiting.dec(len(waiting.items))
            if not waiting.answer.done():
                taken.append(waiting)
                size += len(waiting.items)
        if not self._queue:
            self._arrived.clear()
        return taken

    async def _run_batch(self, taken: list[_PendingCall[T, R]]) -> None:
        """Calls `work` with the items of some requests, and gives each request its results, or the error."""
        items = [item for waiting in taken for item in waiting.items]
        metrics.prediction_batch_size.observe(len(items))
        started = time.perf_counter()
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._thread, self._work_alone, items)
        except Exception as error:
            for waiting in taken:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
            return
        self._note_call(len(items), time.perf_counter() - started)
        start = 0
        for waiting in taken:
            end = start + len(waiting.items)
            if not waiting.answer.done():
                waiting.answer.set_result(results[start:end])
            start = end

    def _work_alone(self, items: Sequence[T]) -> list[R]:
        if self._exclusive is None:
            return self._work(items)
        with self._exclusive:
            return self._work(items)

    def _note_call(self, size: int, seconds: float) -> None:
        """Updates the estimates of what a call costs."""
        per_item = seconds / size
        if self._per_item < float("inf"):
            per_item = self._per_item + _SMOOTHING * (per_item - self._per_item)
        self._per_item = per_item
        self._calls.add(size, seconds)
        self._fixed_cost = self._calls.fixed_cost()


class _RecentCalls:
    """Sizes and durations of recent calls, with the sums that a linear regression needs."""

    def __init__(self) -> None:
        self._calls: collections.deque[tuple[int, float]] = collections.deque()
        self._size = self._size_square = 0
        self._seconds = self._product = 0.0

    def add(self, size: int, seconds: float) -> None:
        """Adds a call, and forgets the oldest if there are too many."""
        self._count(size, seconds, 1)
        self._calls.append((size, seconds))
        if len(self._calls) > _REMEMBERED:
            self._count(*self._calls.popleft(), -1)

    def fixed_cost(self) -> float:
        """Seconds of a call beside those that grow with its size; 0 while it is unknown."""
        count = len(self._calls)
        spread = count * self._size_square - self._size**2  # an integer: exactly 0 if all sizes are equal
        if count < _LEAST_CALLS or not spread:
            return 0.0
        slope = max(0.0, (count * self._product - self._size * self._seconds) / spread)
        return max(0.0, (self._seconds - slope * self._size) / count)

    def _count(self, size: int, seconds: float, sign: int) -> None:
        self._size += sign * size
        self._size_square += sign * size * size
        self._seconds += sign * seconds
        self._product += sign * size * seconds
