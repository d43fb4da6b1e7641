"""A limit on the calls in progress.

With a fixed limit it is a bulkhead. With an algorithm it is an adaptive limit. With shares for classes of criticality
it is an admission limit. A call that finds no free place waits in a bounded queue for a bounded time, and more critical
calls are served first. Calls that do not fit into the queue are refused at once.
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

_ANY = Criticality.QUERY  # kept here, because looking up a member of an enumeration is slow


class LimitExceededError(Exception):
    """Raised when the limit of calls in progress is reached and no place became free in time."""


@dataclass(frozen=True, slots=True)
class LimitConfig:
    """Configuration of a concurrency limit.

    Attributes:
        limit: Calls at a time. It is the initial value if there is an algorithm.
        max_queued: Calls that may wait for a place, 0 by default.
        max_wait: Longest wait in seconds.
        shares: Share of the limit that each class of criticality may use, the most critical class first. Shares below 1
            keep places free for more critical calls.
        algorithm: Adapts the limit. None: the limit is fixed.
    """

    limit: int
    max_queued: int = 0
    max_wait: float = 0.0
    shares: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    algorithm: LimitAlgorithm | None = None


class _Waiter:
    """A call that waits for a place. outcome: None while it waits, then whether it got a place."""

    __slots__ = ("criticality", "outcome", "wake")

    def __init__(self, criticality: Criticality, wake: Callable[[], None]) -> None:
        self.criticality = criticality
        self.wake = wake
        self.outcome: bool | None = None


class ConcurrencyLimit:
    """Admits a limited number of calls at a time. It may be used from threads and event loops at once."""

    def __init__(
        self,
        name: str,
        limit: int | LimitConfig,
        clock: Callable[[], float] = time.monotonic,
        emit: events.Emit = events.emit,
    ) -> None:
        """Creates the limit.

        Args:
            name: Name for events and errors.
            limit: A configuration, or a number for a fixed limit without a queue.
            clock: Monotonic clock in seconds.
            emit: Receives the events of the limit. By default they go to all subscribers.

        Raises:
            ValueError: The limit, the queue, the wait or a share is out of range.
        """
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
        """Changes the limit. Calls in progress and waiting calls stay.

        An adaptive limit continues from its present value within the new bounds. A fixed limit that becomes adaptive
        starts from the algorithm's initial value. Raises ValueError for a configuration that is out of range.
        """
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
            self._set_limit(int(config.algorithm.limit) if config.algorithm else config.limit)
            woken = self._admit_waiting()
        _wake(woken)
        self._emit("limit_change", self.name, str(self.limit))

    def copy_algorithm(self) -> LimitAlgorithm | None:
        """Returns a copy of the algorithm with its state, or None for a fixed limit."""
        with self._lock:
            return copy.deepcopy(self.config.algorithm)

    def take_over(self, other: LimitAlgorithm | None) -> None:
        """Continues from the state of another limit's algorithm, if both limits are adaptive."""
        with self._lock:
            algorithm = self.config.algorithm
            if algorithm is None or other is None:
                return
            algorithm.take_over(other)
            self._set_limit(int(algorithm.limit))
            woken = self._admit_waiting()
        _wake(woken)
        self._emit("limit_change", self.name, str(self.limit))

    @property
    def queued(self) -> int:
        """Number of calls that wait for a place."""
        return self._queued

    def try_acquire(self, criticality: Criticality | None = None) -> bool:
        """Takes a place if one is free for this class, and returns whether it did.

        A call does not overtake waiting calls of its own or a more critical class. The place must be given back with
        `release`.
        """
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
        """Takes a place, blocking the thread while it waits. Raises LimitExceededError if it gets none."""
        if self.try_acquire():
            return
        seconds = self._longest_wait(max_wait)
        woken = threading.Event()
        waiter = self._enqueue(woken.set, current_criticality(), seconds)
        woken.wait(seconds)
        self._claim(waiter)

    async def acquire_async(self, max_wait: float | None = None, criticality: Criticality | None = None) -> None:
        """Takes a place, waiting on the event loop. Raises LimitExceededError if it gets none.

        Args:
            max_wait: Longest wait of the caller in seconds. The shorter of this and the configured wait applies.
            criticality: Class of the call. None: the class of the current work.
        """
        if self.try_acquire(criticality):
            return
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()

        def settle() -> None:
            if not woken.done():
                woken.set_result(None)

        def wake() -> None:
            loop.call_soon_threadsafe(settle)  # the place may be given back on another thread

        seconds = self._longest_wait(max_wait)
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
        """Gives a place back.

        Args:
            seconds: Duration of the call, for an adaptive limit. None if it says nothing about the target.
            dropped: Whether the call failed because the target is overloaded.
        """
        changed = False
        with self._lock:
            if seconds is not None:
                changed = self._update_algorithm(seconds, dropped)
            self.in_flight -= 1
            if not self._queued and not changed:
                return
            woken = self._admit_waiting()
        _wake(woken)
        if changed:
            self._emit("limit_change", self.name, str(self.limit))

    def _update_algorithm(self, seconds: float, dropped: bool) -> bool:
        """Passes an ended call to the algorithm. Returns whether the limit has changed."""
        algorithm = self.config.algorithm
        if algorithm is None or not algorithm.ended(self._clock(), seconds, self.in_flight, dropped):
            return False
        self._set_limit(int(algorithm.limit))
        return True

    def _set_limit(self, limit: int) -> None:
        self.limit = limit
        shares = self.config.shares
        self._even = shares == (1.0, 1.0, 1.0, 1.0)
        self._ceilings = tuple(max(1, int(limit * share)) for share in shares)

    def _longest_wait(self, max_wait: float | None) -> float:
        """Returns how long a call may wait for a place, in seconds."""
        return self.config.max_wait if max_wait is None else min(max_wait, self.config.max_wait)

    def _enqueue(self, wake: Callable[[], None], criticality: Criticality, seconds: float) -> _Waiter:
        """Puts a call that can wait for `seconds` into the queue.

        If the queue is full, it displaces a less critical call. Raises LimitExceededError if there is none, or if the
        call cannot wait.
        """
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
                woken = self._admit_waiting()
        if refused:
            self._refuse(criticality)
        if displaced:
            displaced.wake()
        _wake(woken)
        return waiter

    def _admit_waiting(self) -> list[_Waiter]:
        """Gives free places to waiting calls, the most critical first, and returns those calls."""
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
        """Returns after the wait if the call has got a place. Raises LimitExceededError otherwise."""
        with self._lock:
            if waiter.outcome is None:
                self._queues[waiter.criticality].remove(waiter)
                self._queued -= 1
                waiter.outcome = False
        if not waiter.outcome:
            self._refuse(waiter.criticality)

    def _abandon(self, waiter: _Waiter) -> None:
        """Removes a call that was cancelled while it waited. A place that it has already got goes to the next call."""
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
