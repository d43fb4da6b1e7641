"""Adaptive micro-batching: what waits for the model goes to it together.

While the model works, what arrives gathers by itself. Beyond that it pays to wait for one more as long as that saves
more time than it takes: those that wait, times the usual time between two arrivals, against what a call costs
whatever its size. The latter is the intercept of a line through the latest calls (the idea of Clipper, Crankshaw et
al., 2017, and of BentoML's dispatcher). When little arrives nothing waits.
"""

import asyncio
import collections
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from aurum.runtime import metrics
from aurum.runtime.errors import ResourceExhaustedError

T = TypeVar("T")
R = TypeVar("R")

_REMEMBERED = 64  # calls, to learn from
_LEAST_CALLS = 8
_SMOOTHING = 0.1  # of the time between two arrivals


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """most: items in a call. waiting: items that may wait; more are refused. longest: seconds that one waits for
    others."""

    most: int = 256
    waiting: int = 4096
    longest: float = 0.005


@dataclass(slots=True)
class _Waiting(Generic[T, R]):
    items: Sequence[T]
    answer: "asyncio.Future[list[R]]"
    since: float


class MicroBatcher(Generic[T, R]):
    """Calls `work` on `thread` with the items of many callers at once; it gives one result an item, in their order."""

    def __init__(
        self, work: Callable[[Sequence[T]], list[R]], thread: ThreadPoolExecutor, limits: BatchLimits | None = None
    ) -> None:
        self._work = work
        self._thread = thread
        self._limits = limits or BatchLimits()
        self._queue: collections.deque[_Waiting[T, R]] = collections.deque()
        self._count = 0
        self._arrived = asyncio.Event()
        self._calls: collections.deque[tuple[int, float]] = collections.deque(maxlen=_REMEMBERED)
        self._fixed_cost = 0.0  # seconds
        self._between = 1.0  # seconds between two arrivals
        self._last_arrival = 0.0
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, items: Sequence[T]) -> list[R]:
        """Raises ResourceExhaustedError if too many wait, and what `work` raises."""
        if not items:
            return []
        if self._count + len(items) > max(self._limits.waiting, len(items)):
            metrics.prediction_batch_refused_total.inc(len(items))
            raise ResourceExhaustedError(
                f"{self._count} predictions wait for the model, and {self._limits.waiting} may; try again later",
                reason="MODEL_BUSY",
            )
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="micro-batching")
        now = time.perf_counter()
        since_last = min(now - self._last_arrival, 1.0)
        self._between += _SMOOTHING * (since_last - self._between)
        self._last_arrival = now
        waiting = _Waiting[T, R](items, asyncio.get_running_loop().create_future(), now)
        self._queue.append(waiting)
        self._count += len(items)
        metrics.prediction_batch_waiting.set(self._count)
        self._arrived.set()
        return await waiting.answer

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            await self._gather()
            taken = self._take()
            if taken:
                await self._call(taken)

    async def _gather(self) -> None:
        """Waits for more while that pays."""
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

    def _take(self) -> list[_Waiting[T, R]]:
        """As many as fit into one call, and the first in any case; whoever gave up waiting is left out."""
        taken: list[_Waiting[T, R]] = []
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

    async def _call(self, taken: list[_Waiting[T, R]]) -> None:
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
        self._learn(len(items), time.perf_counter() - started)
        start = 0
        for waiting in taken:
            end = start + len(waiting.items)
            if not waiting.answer.done():
                waiting.answer.set_result(results[start:end])
            start = end

    def _learn(self, size: int, seconds: float) -> None:
        self._calls.append((size, seconds))
        if len(self._calls) < _LEAST_CALLS:
            return
        sizes, times = np.array(self._calls).T
        spread = float(((sizes - sizes.mean()) ** 2).sum())
        slope = float(((sizes - sizes.mean()) * (times - times.mean())).sum()) / spread if spread > 0 else 0.0
        self._fixed_cost = max(0.0, float(times.mean()) - max(0.0, slope) * float(sizes.mean())) if spread > 0 else 0.0
