"""What a breaker and a retry budget must do, said as simply as possible, to be compared with a pipeline."""

import itertools
import math
from dataclasses import dataclass

from aurum.resilience.policy import CircuitBreakerSpec, RetrySpec

BUCKETS = 10  # of a window of time; the calls of the oldest one are forgotten together


@dataclass
class Begun:
    """A call that the breaker let through. period: outcomes count in that of their beginning; counted: as slow, while
    it runs."""

    period: int
    probe: bool
    began: float
    watched: bool
    counted: bool = False


@dataclass
class Outcome:
    """at: when the call ended; for one that was carried over to another window, the latest time that it may have."""

    failed: bool
    slow: bool
    at: float


class BreakerReference:
    """Keeps all outcomes since the breaker was last closed, and looks through them each time."""

    def __init__(self, spec: CircuitBreakerSpec) -> None:
        self.spec = spec
        self._state = "closed"
        self._outcomes: list[Outcome] = []
        self._open_until = -math.inf
        self._reopened = self._passed = 0
        self._half_open = 0  # how often it has been: probes of another time do not count
        self._period = 0
        self._begun: dict[int, Begun] = {}

    @property
    def state(self) -> str:
        return self.spec.force or self._state

    @property
    def probes(self) -> int:
        """Probes in progress, of this time."""
        return sum(call.probe and call.period == self._half_open for call in self._begun.values())

    def admits(self, now: float) -> bool:
        """Whether a call may pass now; what is due by then happens first."""
        self._find_slow(now)
        if self.spec.force:
            return self.spec.force == "closed"
        if self._state == "open" and now >= self._open_until:
            self._move("half-open")
            self._half_open += 1
        if self._state == "half-open":
            return self.probes + self._passed < self.spec.half_open_probes
        return self._state == "closed"

    def begin(self, call: int, now: float) -> None:
        probe = self._state == "half-open" and not self.spec.force
        period = self._half_open if probe else self._period
        self._begun[call] = Begun(period, probe, now, self.spec.slow_call is not None and not probe)

    def end(self, call: int, outcome: str, now: float) -> None:
        """outcome: succeeded, failed or cancelled."""
        begun = self._begun.pop(call)
        slow = self.spec.slow_call is not None and now - begun.began >= self.spec.slow_call
        bad = slow or outcome == "failed"
        if outcome == "cancelled" and not slow:
            return
        if begun.probe:
            if begun.period == self._half_open and self._state == "half-open":
                self._end_probe(bad, now)
        elif begun.period == self._period and not (begun.counted and self.spec.mode == "consecutive"):
            self._outcomes.append(Outcome(outcome == "failed", slow, now))
            if bad:
                self._open_if_due(now)

    def configure(self, spec: CircuitBreakerSpec, now: float) -> None:
        before = self.spec
        self._outcomes = self._carried_over(spec, now) if spec.mode == before.mode else []
        self.spec = spec
        if spec.mode != before.mode or (spec.slow_call != before.slow_call and spec.mode != "consecutive"):
            for call in self._begun.values():
                call.counted = False
        if spec.force != before.force and self._state != "closed":
            self._period += 1
        if self._state == "half-open" and self._passed >= spec.half_open_probes:
            self._close()

    def _end_probe(self, bad: bool, now: float) -> None:
        self._passed += not bad
        if bad:
            self._reopened += 1
            self._open(now)
        elif self._passed >= self.spec.half_open_probes:
            self._close()

    def _find_slow(self, now: float) -> None:
        slow = self.spec.slow_call
        found = [
            call
            for call in self._begun.values()
            if slow is not None and call.watched and call.period == self._period and not call.counted
            if now - call.began >= slow
        ]
        for call in found:
            call.counted = True
            if self.spec.mode == "consecutive":
                self._outcomes.append(Outcome(False, True, now))
        if found:
            self._open_if_due(now)

    def _open_if_due(self, now: float) -> None:
        if self._state == "closed" and not self.spec.force and self._too_bad(now):
            self._open(now)

    def _age(self, outcome: Outcome, now: float) -> int:
        """In buckets of the window of time, which begin at multiples of their width."""
        width = self.spec.window / BUCKETS
        return math.floor(now / width) - math.floor(outcome.at / width)

    def _recent(self, now: float) -> list[Outcome]:
        if self.spec.mode == "time":
            return [each for each in self._outcomes if self._age(each, now) < BUCKETS]
        return self._outcomes[-self.spec.window_calls :] if self.spec.mode == "count" else self._outcomes

    def _carried_over(self, spec: CircuitBreakerSpec, now: float) -> list[Outcome]:
        """What another window of the same mode begins with. Of its time a bucket knows no more than its age."""
        recent = self._recent(now)
        if spec.mode == "time":
            width = self.spec.window / BUCKETS
            recent = [Outcome(each.failed, each.slow, now - self._age(each, now) * width) for each in recent]
            recent = [each for each in recent if each.at > now - spec.window]
        return recent

    def counts(self, now: float) -> tuple[int, int, int]:
        """Calls, failures and slow calls that have ended."""
        recent = self._recent(now)
        if self.spec.mode == "consecutive":
            in_a_row = len(list(itertools.takewhile(lambda each: each.failed or each.slow, reversed(recent))))
            return in_a_row, in_a_row, 0
        return len(recent), sum(each.failed for each in recent), sum(each.slow for each in recent)

    def _too_bad(self, now: float) -> bool:
        spec, (calls, failures, slow) = self.spec, self.counts(now)
        if spec.mode == "consecutive":
            return failures >= spec.fail_max
        running = sum(call.counted and call.period == self._period for call in self._begun.values())
        calls, slow = calls + running, slow + running
        too_slow = spec.slow_call is not None and slow >= spec.slow_call_rate * calls
        return calls >= spec.minimum_calls and (failures >= spec.failure_rate * calls or too_slow)

    def _open(self, now: float) -> None:
        self._open_until = now + min(self.spec.max_open, self.spec.open * self.spec.open_growth**self._reopened)
        self._move("open")

    def _close(self) -> None:
        self._outcomes, self._reopened = [], 0
        self._move("closed")

    def _move(self, state: str) -> None:
        self._state = state
        self._passed = 0
        self._period += 1


class BudgetReference:
    """The most retries and hedges that may have been granted: each second the larger one of floor and share."""

    def __init__(self, spec: RetrySpec) -> None:
        self.spec = spec
        self.granted = 0
        self._second = 0
        self._floor = spec.budget_floor  # the largest that was in force in this second
        self._share = self._before = 0.0

    def most(self, now: float) -> float:
        while self._second < math.floor(now):
            self._before += max(self._floor, self._share)
            self._share, self._floor = 0.0, self.spec.budget_floor
            self._second += 1
        return self._before + max(self._floor, self._share)

    def call(self, now: float) -> None:
        self.most(now)
        self._share += self.spec.budget_ratio

    def configure(self, spec: RetrySpec, now: float) -> None:
        self.most(now)
        self.spec = spec
        self._floor = max(self._floor, spec.budget_floor)
