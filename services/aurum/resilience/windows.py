"""The windows of a circuit breaker: failures in a row, the last n calls, or the calls of the last seconds."""

import math
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Counts:
    """The number of calls, and how many of them failed or were slow. One call may be both."""

    calls: int = 0
    failures: int = 0
    slow: int = 0


class Window(Protocol):
    """The outcomes of recent calls. It is not thread-safe; the breaker protects it with a lock."""

    def record(self, now: float, failed: bool, slow: bool) -> None:
        """Records a call that ended at the time `now`, in seconds."""

    def counts(self, now: float) -> Counts:
        """Returns the counts of the calls in the window at the time `now`, in seconds."""

    def clear(self) -> None:
        """Removes all calls."""


class ConsecutiveWindow:
    """Counts the failed or slow calls since the last success."""

    def __init__(self) -> None:
        self.failures = 0

    def record(self, now: float, failed: bool, slow: bool) -> None:
        """Counts a failed or slow call. Another call resets the count."""
        self.failures = self.failures + 1 if failed or slow else 0

    def counts(self, now: float) -> Counts:
        """Returns the number of failures in a row."""
        return Counts(self.failures, self.failures)

    def clear(self) -> None:
        """Resets the count."""
        self.failures = 0

    def copy(self) -> "ConsecutiveWindow":
        """Returns an independent window with the same count."""
        window = ConsecutiveWindow()
        window.failures = self.failures
        return window


class CountWindow:
    """The last `size` calls in a ring buffer. Bit 0 of an entry marks a failure, bit 1 a slow call."""

    def __init__(self, size: int) -> None:
        self._ring = bytearray(size)
        self._next = self._calls = self._failures = self._slow = 0

    def record(self, now: float, failed: bool, slow: bool) -> None:
        """Records a call. It replaces the oldest one if the window is full."""
        ring, at = self._ring, self._next
        if self._calls == len(ring):
            old = ring[at]
            self._failures -= old & 1
            self._slow -= old >> 1
        else:
            self._calls += 1
        ring[at] = failed | slow << 1
        self._failures += failed
        self._slow += slow
        at += 1
        self._next = 0 if at == len(ring) else at

    def counts(self, now: float) -> Counts:
        """Returns the counts of the calls in the window."""
        return Counts(self._calls, self._failures, self._slow)

    def clear(self) -> None:
        """Removes all calls."""
        self._next = self._calls = self._failures = self._slow = 0

    def resized(self, size: int) -> "CountWindow":
        """Returns a window of another size that keeps the latest of these calls."""
        ordered = self._ring[self._next :] + self._ring[: self._next] if self._calls == len(self._ring) else self._ring
        latest = ordered[: self._calls]
        window = CountWindow(size)
        for entry in latest[-size:]:
            window.record(0.0, bool(entry & 1), bool(entry >> 1))
        return window


class TimeWindow:
    """The calls of the last `seconds`, summed in ten buckets. The calls of the oldest bucket are dropped together."""

    BUCKETS = 10

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._width = seconds / self.BUCKETS
        self._calls = [0] * self.BUCKETS
        self._failures = [0] * self.BUCKETS
        self._slow = [0] * self.BUCKETS
        self._slot: int | None = None
        self._at = 0  # index of the current bucket
        self._from = self._until = -math.inf  # bounds of the current slot, in seconds

    def record(self, now: float, failed: bool, slow: bool) -> None:
        """Records a call that ended at the time `now`, in seconds."""
        at = self._at if self._from <= now < self._until else self._advance(now)
        self._calls[at] += 1
        self._failures[at] += failed
        self._slow[at] += slow

    def counts(self, now: float) -> Counts:
        """Returns the counts of the calls in the window at the time `now`, in seconds."""
        self._advance(now)
        return Counts(sum(self._calls), sum(self._failures), sum(self._slow))

    def clear(self) -> None:
        """Removes all calls."""
        self._calls = [0] * self.BUCKETS
        self._failures = [0] * self.BUCKETS
        self._slow = [0] * self.BUCKETS
        self._slot = None
        self._from = self._until = -math.inf

    def resized(self, seconds: float, now: float) -> "TimeWindow":
        """Returns a window of another length that keeps these calls. The calls of a bucket are dated to its end."""
        window = TimeWindow(seconds)
        self._advance(now)
        if self._slot is None:
            return window
        for age in range(self.BUCKETS - 1, -1, -1):
            at = (self._slot - age) % self.BUCKETS
            ended = now - age * self._width
            if self._calls[at] and ended > now - seconds:
                to = window._advance(ended)
                window._calls[to] += self._calls[at]
                window._failures[to] += self._failures[at]
                window._slow[to] += self._slow[at]
        return window

    def _advance(self, now: float) -> int:
        """Empties the buckets that are too old, and returns the index of the current one."""
        slot = math.floor(now / self._width)
        if self._slot is None:
            self._slot = slot
        elif slot > self._slot:
            for step in range(1, min(slot - self._slot, self.BUCKETS) + 1):
                at = (self._slot + step) % self.BUCKETS
                self._calls[at] = self._failures[at] = self._slow[at] = 0
            self._slot = slot
        self._at = self._slot % self.BUCKETS
        self._from, self._until = self._slot * self._width, (self._slot + 1) * self._width
        return self._at
