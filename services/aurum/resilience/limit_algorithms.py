"""Algorithms of adaptive limits: they derive the number of calls at a time from the duration and outcome of calls.

Both work on samples, which are the mean durations of the calls that ended within a short period. They are not
thread-safe. The limit that owns an algorithm protects it with a lock.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Protocol

_SAMPLE_SECONDS = 0.1  # shortest duration of a sample
_SAMPLE_CALLS = 10  # fewest calls in a sample, unless one was dropped


class LimitAlgorithm(Protocol):
    """Derives the limit on the calls in progress from the calls that ended. limit: The present limit."""

    limit: float

    def ended(self, now: float, seconds: float, in_flight: int, dropped: bool) -> bool:
        """Records an ended call and returns whether the limit has changed.

        Args:
            now: Time in seconds.
            seconds: Duration of the call.
            in_flight: Calls in progress when it ended, including itself.
            dropped: Whether it failed because of overload.
        """

    def base_limit(self) -> float:
        """Returns the limit that has been determined so far, without temporary reductions."""

    def take_over(self, before: "LimitAlgorithm") -> None:
        """Continues from the limit of another algorithm, within this one's bounds.

        Samples are kept if both are of the same kind.
        """


@dataclass(slots=True)
class _Sample:
    """The calls since the last sample was completed."""

    began: float = -math.inf
    calls: int = 0
    seconds: float = 0.0
    in_flight: int = 0
    dropped: bool = False

    def add_call(self, now: float, seconds: float, in_flight: int, dropped: bool) -> bool:
        """Adds a call and returns whether the sample is complete. Dropped calls do not enter the mean duration."""
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
    """Additive increase, multiplicative decrease (AIMD), as in TCP.

    The limit grows by one after a sample in which at least half of it was used, no call was dropped and the mean
    duration was at most `slow_seconds`. It is multiplied by `backoff` (0.9) if a call was dropped or the mean was
    longer.
    """

    limit: float
    least: int
    most: int
    slow_seconds: float = math.inf
    backoff: float = 0.9
    _sample: _Sample = field(default_factory=_Sample)

    def ended(self, now: float, seconds: float, in_flight: int, dropped: bool) -> bool:
        """Records an ended call and returns whether the limit has changed, see LimitAlgorithm."""
        if not self._sample.add_call(now, seconds, in_flight, dropped):
            return False
        sample, self._sample = self._sample, _Sample()
        before = self.limit
        if sample.dropped or sample.mean > self.slow_seconds:
            self.limit = max(self.least, self.limit * self.backoff)
        elif 2 * sample.in_flight >= self.limit:
            self.limit = min(self.most, self.limit + 1)
        return int(self.limit) != int(before)

    def base_limit(self) -> float:
        """Returns the present limit, which is never reduced temporarily."""
        return self.limit

    def take_over(self, before: LimitAlgorithm) -> None:
        """Continues from the limit of another algorithm, and from its samples if it is Aimd too."""
        self.limit = _within(self.least, before.base_limit(), self.most)
        if isinstance(before, Aimd):
            self._sample = replace(before._sample)


@dataclass(slots=True)
class Vegas:
    """TCP Vegas, as in Netflix's concurrency-limits.

    Of `limit` calls, limit * (1 - least duration / present duration) are estimated to wait in a queue of the target.
    The limit grows if few calls wait, and shrinks if many do.

    The least duration is the smallest mean of the last `memory` to 2 * `memory` seconds (10 to 20 by default). Before
    an old value is dropped, the limit is halved for one sample, as BBR does. So a queue under lasting load is not taken
    for the normal state.
    """

    limit: float
    least: int
    most: int
    memory: float = 10.0
    _sample: _Sample = field(default_factory=_Sample)
    _least_now: float = math.inf
    _least_before: float = math.inf
    _turns_at: float = -math.inf
    _resume: float | None = None  # the limit to restore after a sample with half of it

    def ended(self, now: float, seconds: float, in_flight: int, dropped: bool) -> bool:
        """Records an ended call and returns whether the limit has changed, see LimitAlgorithm."""
        if not self._sample.add_call(now, seconds, in_flight, dropped):
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

    def base_limit(self) -> float:
        """Returns the limit without the temporary halving."""
        return self.limit if self._resume is None else self._resume

    def take_over(self, before: LimitAlgorithm) -> None:
        """Continues from the limit of another algorithm, and from its samples and durations if it is Vegas too."""
        if not isinstance(before, Vegas):
            self.limit = _within(self.least, before.base_limit(), self.most)
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
