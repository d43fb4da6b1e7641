"""Adaptive micro-batching: waiting requests are passed to the model in one call.

Requests that arrive during a call form the next batch. Before a call starts, it waits for another request as long as
the expected delay is less than the saving: the number of waiting requests times the mean time between arrivals, against
the fixed cost of a call. The fixed cost is the intercept of a line fitted to the duration of recent calls by their size
(similar to Clipper, Crankshaw et al., 2017, and BentoML's dispatcher). At low load requests do not wait.
"""

import asyncio
import collections
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from aurum.prediction import metrics
from aurum.runtime.errors import ResourceExhaustedError

T = TypeVar("T")
R = TypeVar("R")

_REMEMBERED = 64  # recent calls that the fixed cost is estimated from
_LEAST_CALLS = 8
_SMOOTHING = 0.1  # weight of the latest time between two arrivals


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
        self, work: Callable[[Sequence[T]], list[R]], thread: ThreadPoolExecutor, limits: BatchLimits | None = None
    ) -> None:
        self._work = work
        self._thread = thread
        self._limits = limits or BatchLimits()
        self._queue: collections.deque[_PendingCall[T, R]] = collections.deque()
        self._count = 0
        self._arrived = asyncio.Event()
        self._calls: collections.deque[tuple[int, float]] = collections.deque(maxlen=_REMEMBERED)
        self._fixed_cost = 0.0  # seconds
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
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="micro-batching")
        now = time.perf_counter()
        since_last = min(now - self._last_arrival, 1.0)
        self._between += _SMOOTHING * (since_last - self._between)
        self._last_arrival = now
        waiting = _PendingCall[T, R](items, asyncio.get_running_loop().create_future(), now)
        self._queue.append(waiting)
        self._count += len(items)
        metrics.prediction_batch_waiting.set(self._count)
        self._arrived.set()
        return await waiting.answer

    def close(self) -> None:
        """Stops forming batches. Callers that still wait are not answered."""
        if self._task is not None:
            self._task.cancel()

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
            if not waiting.answer.done():
                taken.append(waiting)
                size += len(waiting.items)
        metrics.prediction_batch_waiting.set(self._count)
        if not self._queue:
            self._arrived.clear()
        return taken

    async def _run_batch(self, taken: list[_PendingCall[T, R]]) -> None:
        """Calls `work` with the items of some requests, and gives each request its results, or the error."""
        items = [item for waiting in taken for item in waiting.items]
        metrics.prediction_batch_size.observe(len(items))
        started = time.perf_counter()
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._thread, self._work, items)
        except Exception as error:
            for waiting in taken:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
            return
        self._update_fixed_cost(len(items), time.perf_counter() - started)
        start = 0
        for waiting in taken:
            end = start + len(waiting.items)
            if not waiting.answer.done():
                waiting.answer.set_result(results[start:end])
            start = end

    def _update_fixed_cost(self, size: int, seconds: float) -> None:
        """Estimates the fixed cost of a call from the durations of recent calls, by linear regression on their size."""
        self._calls.append((size, seconds))
        if len(self._calls) < _LEAST_CALLS:
            return
        sizes, times = np.array(self._calls).T
        spread = float(((sizes - sizes.mean()) ** 2).sum())
        slope = float(((sizes - sizes.mean()) * (times - times.mean())).sum()) / spread if spread > 0 else 0.0
        self._fixed_cost = max(0.0, float(times.mean()) - max(0.0, slope) * float(sizes.mean())) if spread > 0 else 0.0
