"""A limit on the calls in progress: a bulkhead if it is fixed, adaptive with an algorithm, with classes an admission.

What finds no place waits in a bounded queue for a bounded time, the more critical first; the rest is refused at once.
"""

import asyncio
import collections
import copy
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from aurum.resilience import events
from aurum.resilience.criticality import Criticality, current_criticality
from aurum.resilience.limit_algorithms import LimitAlgorithm

_ANY = Criticality.QUERY  # looked up once: a member of an enumeration is found slowly


class LimitExceededError(Exception):
    """As many calls as allowed are in progress, and none of them ended in time."""


@dataclass(frozen=True, slots=True)
class LimitConfig:
    """limit: calls at a time. max_queued: calls that wait for a place, 0 by default. max_wait: seconds that one waits
    at most. shares: of the limit, for each class of criticality, the most critical first; so some places are kept free
    for what matters more. algorithm: adapts the limit, which is then where it begins; None for a fixed one.
    """

    limit: int
    max_queued: int = 0
    max_wait: float = 0.0
    shares: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    algorithm: LimitAlgorithm | None = None


class _Waiter:
    """A call that waits for a place. outcome: None while it waits, then whether it got one."""

    __slots__ = ("criticality", "outcome", "wake")

    def __init__(self, criticality: Criticality, wake: Callable[[], None]) -> None:
        self.criticality = criticality
        self.wake = wake
        self.outcome: bool | None = None


class ConcurrencyLimit:
    """Admits so many calls at a time. For threads and event loops alike, also both at once."""

    def __init__(
        self,
        name: str,
        limit: int | LimitConfig,
        clock: Callable[[], float] = time.monotonic,
        emit: events.Emit = events.emit,
    ) -> None:
        """limit: a number, for a fixed limit without a queue. emit: takes its events; all who have subscribed by
        default. Raises ValueError for a limit that cannot be."""
        self.name = name
        self.in_flight = 0
        self._clock = clock
        self._emit = emit
        self._lock = threading.Lock()
        self._queues: tuple[collections.deque[_Waiter], ...] = tuple(collections.deque() for _ in Criticality)
        self._queued = 0
        self.config = limit if isinstance(limit, LimitConfig) else LimitConfig(limit)
        self.configure(self.config)

    def configure(self, config: LimitConfig) -> None:
        """Changes the limit; calls in progress and waiting stay. An adaptive limit goes on from where it is, within the
        new bounds, whichever of its fields have changed; a fixed limit that becomes adaptive begins at its first."""
        if config.limit < 1 or config.max_queued < 0 or config.max_wait < 0:
            raise ValueError(
                f"concurrency limit {self.name}: the limit must be at least 1, not {config.limit}; "
                f"queue and wait at least 0"
            )
        if not all(0 < share <= 1 for share in config.shares):
            raise ValueError(f"concurrency limit {self.name}: shares must be above 0 and up to 1")
        with self._lock:
            before = self.config.algorithm
            if config.algorithm is not None and before is not None and config.algorithm is not before:
                config.algorithm.take_over(before)
            self.config = config
            self._set(int(config.algorithm.limit) if config.algorithm else config.limit)
            woken = self._hand_over()
        _wake(woken)
        self._emit("limit_change", self.name, str(self.limit))

    def found(self) -> LimitAlgorithm | None:
        """A copy of the algorithm with all that it has found; None for a fixed limit."""
        with self._lock:
            return copy.deepcopy(self.config.algorithm)

    def take_over(self, found: LimitAlgorithm | None) -> None:
        """Continues from what the algorithm of another limit has found, if both are adaptive."""
        with self._lock:
            algorithm = self.config.algorithm
            if algorithm is None or found is None:
                return
            algorithm.take_over(found)
            self._set(int(algorithm.limit))
            woken = self._hand_over()
        _wake(woken)
        self._emit("limit_change", self.name, str(self.limit))

    @property
    def queued(self) -> int:
        """Calls that wait for a place."""
        return self._queued

    def try_acquire(self, criticality: Criticality | None = None) -> bool:
        """Takes a place if one is free for this class and no call of this or a higher one waits for it; to be given
        back with `release`."""
        if criticality is None:
            criticality = _ANY if self._even else current_criticality()
        with self._lock:
            if self.in_flight < self._ceilings[criticality] and not (
                self._queued and any(self._queues[: criticality + 1])
            ):
                self.in_flight += 1
                return True
        return False

    def acquire(self, max_wait: float | None = None) -> None:
        """Takes a place, waiting for it if need be, on a thread. Raises LimitExceededError."""
        if self.try_acquire():
            return
        seconds = self._patience(max_wait)
        woken = threading.Event()
        waiter = self._enqueue(woken.set, current_criticality(), seconds)
        woken.wait(seconds)
        self._claim(waiter)

    async def acquire_async(self, max_wait: float | None = None, criticality: Criticality | None = None) -> None:
        """The same on an event loop. max_wait: of the caller, in seconds; the shorter one counts."""
        if self.try_acquire(criticality):
            return
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()

        def settle() -> None:
            if not woken.done():
                woken.set_result(None)

        def wake() -> None:
            loop.call_soon_threadsafe(settle)  # the place may be given back on another thread

        seconds = self._patience(max_wait)
        waiter = self._enqueue(wake, current_criticality() if criticality is None else criticality, seconds)
        timer = loop.call_later(seconds, settle)
        try:
            await woken
        except BaseException:
            self._abandon(waiter)
            raise
        finally:
            timer.cancel()
        self._claim(waiter)

    def release(self, seconds: float | None = None, dropped: bool = False) -> None:
        """Gives a place back. seconds: that the call took, for an adaptive limit; None if it says nothing of the
        target. dropped: the call failed because the target has too much to do."""
        changed = False
        with self._lock:
            if seconds is not None:
                changed = self._learn(seconds, dropped)
            self.in_flight -= 1
            if not self._queued and not changed:
                return
            woken = self._hand_over()
        _wake(woken)
        if changed:
            self._emit("limit_change", self.name, str(self.limit))

    def _learn(self, seconds: float, dropped: bool) -> bool:
        """Lets the algorithm look at a call that has ended; whether the limit has changed."""
        algorithm = self.config.algorithm
        if algorithm is None or not algorithm.ended(self._clock(), seconds, self.in_flight, dropped):
            return False
        self._set(int(algorithm.limit))
        return True

    def _set(self, limit: int) -> None:
        self.limit = limit
        shares = self.config.shares
        self._even = shares == (1.0, 1.0, 1.0, 1.0)
        self._ceilings = tuple(max(1, int(limit * share)) for share in shares)

    def _patience(self, max_wait: float | None) -> float:
        """Seconds that a call waits for a place."""
        return self.config.max_wait if max_wait is None else min(max_wait, self.config.max_wait)

    def _enqueue(self, wake: Callable[[], None], criticality: Criticality, seconds: float) -> _Waiter:
        """Puts a call that can wait for so many seconds into the queue, in a full one in the place of a less critical
        one. Raises LimitExceededError, also if it cannot wait at all."""
        if seconds <= 0.0:
            self._refuse(criticality)
        waiter = _Waiter(criticality, wake)
        displaced: _Waiter | None = None
        refused = False
        with self._lock:
            if self._queued >= self.config.max_queued:
                displaced = next((queue.pop() for queue in reversed(self._queues[criticality + 1 :]) if queue), None)
                if displaced is None:
                    refused = True
                else:
                    displaced.outcome = False
                    self._queued -= 1
            if not refused:
                self._queues[criticality].append(waiter)
                self._queued += 1
                woken = self._hand_over()
        if refused:
            self._refuse(criticality)
        if displaced:
            displaced.wake()
        _wake(woken)
        return waiter

    def _hand_over(self) -> list[_Waiter]:
        """Gives free places to those that wait, the most critical first."""
        woken: list[_Waiter] = []
        for queue, ceiling in zip(self._queues, self._ceilings, strict=True):
            while queue and self.in_flight < ceiling:
                waiter = queue.popleft()
                self._queued -= 1
                self.in_flight += 1
                waiter.outcome = True
                woken.append(waiter)
        return woken

    def _claim(self, waiter: _Waiter) -> None:
        """After the wait: returns if the call has its place. Raises LimitExceededError."""
        with self._lock:
            if waiter.outcome is None:
                self._queues[waiter.criticality].remove(waiter)
                self._queued -= 1
                waiter.outcome = False
        if not waiter.outcome:
            self._refuse(waiter.criticality)

    def _abandon(self, waiter: _Waiter) -> None:
        """The call was cancelled while it waited: the place that it may have got goes to the next."""
        with self._lock:
            if waiter.outcome is None:
                self._queues[waiter.criticality].remove(waiter)
                self._queued -= 1
                return
            granted = waiter.outcome
            waiter.outcome = False
        if granted:
            self.release()

    def _refuse(self, criticality: Criticality) -> None:
        name = criticality.name.lower()
        self._emit("limit_rejection", self.name, name)
        raise LimitExceededError(f"{self.name}: {self.in_flight} calls are in progress; the limit is {self.limit}")


def _wake(waiters: list[_Waiter]) -> None:
    for waiter in waiters:
        waiter.wake()
