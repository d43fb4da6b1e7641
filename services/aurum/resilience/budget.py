"""A retry budget: retries may add only a fraction to the load, so that an outage is not made worse by its callers.

The method is the one of Finagle's RetryBudget: each call deposits a fraction of a token, each retry takes a whole
one, and a floor of retries per second is always allowed so that a client with little traffic may retry at all.
"""

import threading
import time
from collections.abc import Callable

from aurum.resilience import events


class RetryBudget:
    """Tokens shared by all retries under one policy.

    ratio: retries allowed per call, 0.2 by default. floor: retries per second allowed in any case, 1.0 by default.
    capacity: the most tokens that are saved up, 100 by default.
    """

    def __init__(
        self,
        name: str,
        ratio: float = 0.2,
        floor: float = 1.0,
        capacity: float = 100.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 0.0 <= ratio <= 1.0:
            raise ValueError(f"retry budget {name}: ratio must be between 0 and 1, not {ratio}")
        self.name = name
        self.ratio = ratio
        self.floor = floor
        self.capacity = capacity
        self._clock = clock
        self._tokens = min(capacity, max(1.0, 10.0 * floor))
        self._refilled = clock()
        self._lock = threading.Lock()

    @property
    def tokens(self) -> float:
        """Retries that may be made now."""
        with self._lock:
            self._refill()
            return self._tokens

    def deposit(self) -> None:
        """Counts one call."""
        with self._lock:
            self._refill()
            self._tokens = min(self.capacity, self._tokens + self.ratio)

    def withdraw(self) -> bool:
        """Takes one retry from the budget; False if it is spent."""
        with self._lock:
            self._refill()
            granted = self._tokens >= 1.0
            if granted:
                self._tokens -= 1.0
            tokens = self._tokens
        events.emit("budget_tokens", self.name, f"{tokens:.2f}")
        if not granted:
            events.emit("budget_exhausted", self.name)
        return granted

    def _refill(self) -> None:
        now = self._clock()
        self._tokens = min(self.capacity, self._tokens + (now - self._refilled) * self.floor)
        self._refilled = now
