"""A retry budget: retries may add only a fraction to the load, so that callers do not make an outage worse.

It follows Finagle's RetryBudget. Each call earns a fraction of a token, and each retry or hedge takes a whole one. The
floor is not added to that: each second earns the larger of both, so that a busy client never exceeds the fraction.
"""

import threading
import time
from collections.abc import Callable

from aurum.resilience import events

_PERIOD = 1.0  # period in seconds in which the floor is compared with the earnings of calls


class RetryBudget:
    """Tokens that all retries and hedges under one policy share.

    Args:
        name: Name for events and errors.
        ratio: Retries allowed per call, 0.2 by default.
        floor: Retries allowed per second in any case, 1.0 by default.
        capacity: Most tokens that are saved up, 100 by default. They bound a burst of retries after a quiet time.
        clock: Monotonic clock in seconds.
    """

    def __init__(
        self,
        name: str,
        ratio: float = 0.2,
        floor: float = 1.0,
        capacity: float = 100.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Creates the budget. Raises ValueError for values that are out of range."""
        self.name = name
        self._clock = clock
        self._lock = threading.Lock()
        self.ratio, self.floor, self.capacity = ratio, floor, capacity
        self._earned = 0.0  # by the calls of this period
        self._given = floor  # by the floor at the beginning of this period
        self._period_ends = clock() + _PERIOD
        self._tokens = min(floor, capacity)
        self.configure(ratio, floor, capacity)

    def configure(self, ratio: float, floor: float, capacity: float = 100.0) -> None:
        """Changes the configuration. Tokens are kept, and past seconds have earned by the old values.

        Raises ValueError for values that are out of range.
        """
        if not 0.0 <= ratio <= 1.0:
            raise ValueError(f"retry budget {self.name}: ratio must be between 0 and 1, not {ratio}")
        if floor < 0.0 or capacity < 1.0:
            raise ValueError(f"retry budget {self.name}: floor must be at least 0 and capacity at least 1")
        with self._lock:
            self._roll(self._clock())
            self.ratio = ratio
            self.floor = floor
            self.capacity = capacity
            self._tokens = min(self._tokens, capacity)

    def take_over(self, tokens: float) -> None:
        """Continues with the tokens of the previous budgets of these calls, up to the capacity."""
        with self._lock:
            self._tokens = min(tokens, self.capacity)

    @property
    def tokens(self) -> float:
        """Number of retries that may be made now."""
        with self._lock:
            self._roll(self._clock())
            return self._tokens

    def deposit(self, now: float | None = None) -> None:
        """Counts one call."""
        if now is None:
            now = self._clock()
        if self._tokens >= self.capacity and now < self._period_ends:
            return  # the usual case: there is nothing to add and no lock is needed
        with self._lock:
            if now >= self._period_ends:
                self._roll(now)
            ratio = self.ratio
            self._earned = earned = self._earned + ratio
            above = earned - self._given  # tokens that the floor has given are not given again
            if above > 0.0:
                tokens = self._tokens + (ratio if above > ratio else above)
                self._tokens = tokens if tokens < self.capacity else self.capacity

    def withdraw(self) -> bool:
        """Takes one retry from the budget. Returns False if it is exhausted."""
        with self._lock:
            self._roll(self._clock())
            granted = self._tokens >= 1.0
            if granted:
                self._tokens -= 1.0
        if not granted:
            events.emit("budget_exhausted", self.name)
        return granted

    def _roll(self, now: float) -> None:
        """Begins a new period if the last one is over."""
        if now >= self._period_ends:
            periods = int((now - self._period_ends) / _PERIOD) + 1
            self._tokens = min(self.capacity, self._tokens + periods * self.floor)
            self._period_ends += periods * _PERIOD
            self._earned = 0.0
            self._given = self.floor
