"""How an adaptive limit finds how many calls at a time its target can take, from how long they take and how they end.

Both work on samples: the mean duration of the calls that ended within a short while. Neither is for use from several
threads at once; the limit that owns it has a lock.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Protocol

OVERLOADED = frozenset({"DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "UNAVAILABLE"})  # codes of calls that were dropped
_SAMPLE_SECONDS = 0.1  # a sample is taken after so long,
_SAMPLE_CALLS = 10  # and so many calls


class LimitAlgorithm(Protocol):
    limit: float

    def ended(self, now: float, seconds: float, in_flight: int, dropped: bool) -> bool:
        """A call took so long, with so many in progress; dropped: for overload. Whether the limit has changed."""

    def found(self) -> float:
        """The limit that it has found so far."""

    def take_over(self, before: "LimitAlgorithm") -> None:
        """Continues from what another one has found, within the own bounds; of the same kind, with its samples too."""


@dataclass(slots=True)
class _Sample:
    """The calls since the last sample."""

    began: float = -math.inf
    calls: int = 0
    seconds: float = 0.0
    in_flight: int = 0
    dropped: bool = False

    def add(self, now: float, seconds: float, in_flight: int, dropped: bool) -> bool:
        """Whether the sample is complete. A call that was dropped says nothing of how long others take."""
        if self.calls == 0 and not self.dropped:
            self.began = now
        if dropped:
            self.dropped = True
        else:
            self.calls += 1
            self.seconds += seconds
        self.in_flight = max(self.in_flight, in_flight)
        return now - self.began >= _SAMPLE_SECONDS and (self.calls >= _SAMPLE_CALLS or self.dropped)

    @property
    def mean(self) -> float:
        return self.seconds / self.calls if self.calls else math.inf


@dataclass(slots=True)
class Aimd:
    """Additive increase, multiplicative decrease, as TCP does: one more after a sample in which the limit was used and
    no call was dropped or took longer than `slow_seconds`; else `backoff` (0.9) of it."""

    limit: float
    least: int
    most: int
    slow_seconds: float = math.inf
    backoff: float = 0.9
    _sample: _Sample = field(default_factory=_Sample)

    def ended(self, now: float, seconds: float, in_flight: int, dropped: bool) -> bool:
        if not self._sample.add(now, seconds, in_flight, dropped):
            return False
        sample, self._sample = self._sample, _Sample()
        before = self.limit
        if sample.dropped or sample.mean > self.slow_seconds:
            self.limit = max(self.least, self.limit * self.backoff)
        elif 2 * sample.in_flight >= self.limit:
            self.limit = min(self.most, self.limit + 1)
        return int(self.limit) != int(before)

    def found(self) -> float:
        return self.limit

    def take_over(self, before: LimitAlgorithm) -> None:
        self.limit = _within(self.least, before.found(), self.most)
        if isinstance(before, Aimd):
            self._sample = replace(before._sample)


@dataclass(slots=True)
class Vegas:
    """TCP Vegas, as in Netflix's concurrency-limits: of `limit` calls, limit * (1 - least time / time now) wait in a
    queue; with few waiting the limit grows, with many it shrinks.

    The least time is the smallest of the last `memory` to 2 * `memory` (10 to 20) seconds. Before it is forgotten, the
    limit is halved for one sample, so that under lasting load a queue is not taken for the normal state, as BBR does.
    """

    limit: float
    least: int
    most: int
    memory: float = 10.0
    _sample: _Sample = field(default_factory=_Sample)
    _least_now: float = math.inf
    _least_before: float = math.inf
    _turns_at: float = -math.inf
    _resume: float | None = None  # the limit to go back to after a sample with half of it

    def ended(self, now: float, seconds: float, in_flight: int, dropped: bool) -> bool:
        if not self._sample.add(now, seconds, in_flight, dropped):
            return False
        sample, self._sample = self._sample, _Sample()
        before = self.limit
        self._least_now = min(self._least_now, sample.mean)
        if self._resume is not None:
            self.limit, self._resume = self._resume, None
        elif now >= self._turns_at:
            if self._turns_at > -math.inf:
                self._least_before, self._least_now = self._least_now, math.inf
                self._resume, self.limit = self.limit, max(self.least, self.limit / 2)
            self._turns_at = now + self.memory
        else:
            self._adjust(sample)
        return int(self.limit) != int(before)

    def found(self) -> float:
        return self.limit if self._resume is None else self._resume

    def take_over(self, before: LimitAlgorithm) -> None:
        if not isinstance(before, Vegas):
            self.limit = _within(self.least, before.found(), self.most)
            return
        self.limit = _within(self.least, before.limit, self.most)
        self._resume = None if before._resume is None else _within(self.least, before._resume, self.most)
        self._sample = replace(before._sample)
        self._least_now, self._least_before = before._least_now, before._least_before
        self._turns_at = before._turns_at

    def _adjust(self, sample: _Sample) -> None:
        step = max(1.0, math.log10(self.limit))
        if sample.dropped:
            self.limit = max(self.least, self.limit - step)
            return
        least = min(self._least_now, self._least_before)
        queued = math.ceil(self.limit * (1.0 - least / sample.mean)) if sample.mean > 0 else 0
        if queued > 6 * step:
            self.limit = max(self.least, self.limit - step)
        elif queued < 3 * step and 2 * sample.in_flight >= self.limit:
            self.limit = min(self.most, self.limit + (6 * step if queued <= step else step))


def _within(least: int, limit: float, most: int) -> float:
    return min(most, max(least, limit))
