"""The circuit breaker compared with a reference model, and its threads, listeners and reloads."""

import dataclasses
import itertools
import math
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aurum.resilience import BreakerConfig, CircuitBreakerError, ResilientCircuitBreaker, events
from aurum.resilience.circuit_breaker import CircuitBreakerListener
from aurum.resilience.windows import CountWindow, TimeWindow

SLOW = 1.0  # seconds


class BreakerMachine(RuleBasedStateMachine):
    """Calls begin, end in any order and way, time passes; a list of what happened says what the breaker must do."""

    @initialize(
        mode=st.sampled_from(["consecutive", "count"]),
        size=st.integers(1, 6),
        minimum=st.integers(1, 4),
        rate=st.sampled_from([0.25, 0.5, 1.0]),
        slow_rate=st.sampled_from([0.5, 1.0]),
        probes=st.integers(1, 3),
        growth=st.sampled_from([1.0, 2.0]),
    )
    def begin(
        self, *, mode: Any, size: int, minimum: int, rate: float, slow_rate: float, probes: int, growth: float
    ) -> None:
        self.now = 0.0
        self.config = BreakerConfig(
            mode=mode,
            fail_max=size,
            window_calls=size,
            minimum_calls=min(minimum, size),
            failure_rate=rate,
            slow_seconds=SLOW,
            slow_rate=slow_rate,
            open_seconds=10.0,
            open_growth=growth,
            max_open_seconds=30.0,
            probes=probes,
        )
        self.breaker = ResilientCircuitBreaker("m", config=self.config, clock=lambda: self.now)
        self.calls: list[list[Any]] = []  # permit, period it began in, when, whether it was counted as slow
        self.period = 0  # grows with each change of state
        self.state = "closed"
        self.window: list[tuple[bool, bool]] = []
        self.open_until = 0.0
        self.reopened = 0
        self.probes_out = self.probes_ok = 0

    def move(self, state: str) -> None:
        self.state = state
        self.period += 1
        self.probes_out = self.probes_ok = 0
        if state == "open":
            self.open_for = min(30.0, 10.0 * self.config.open_growth**self.reopened)
            self.open_until = self.now + self.open_for
        if state == "closed":
            self.window, self.reopened = [], 0

    @rule(seconds=st.sampled_from([0.5, 5.0, 10.0, 31.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(size=st.integers(4, 6), probes=st.integers(1, 3))
    def reload(self, size: int, probes: int) -> None:
        if self.config.mode == "count":
            self.window = self.window[-self.config.window_calls :][-size:]
        self.config = dataclasses.replace(self.config, fail_max=size, window_calls=size, probes=probes)
        self.breaker.configure(self.config)
        if self.state == "half-open" and self.probes_ok >= probes:
            self.move("closed")

    @rule()
    def begin_call(self) -> None:
        if self.state == "closed":
            self.find_slow()
        if self.state == "open" and self.now >= self.open_until:
            self.move("half-open")
        refused = self.state == "open" or (
            self.state == "half-open" and self.probes_out + self.probes_ok >= self.config.probes
        )
        if refused:
            with pytest.raises(CircuitBreakerError):
                self.breaker.acquire()
        else:
            self.calls.append([self.breaker.acquire(), self.period, self.now, False])
            self.probes_out += self.state == "half-open"

    def find_slow(self) -> None:
        """In a row, calls count as slow once they have taken that long; in a window, for as long as they run."""
        overdue = [call for call in self.calls if call[1] == self.period and self.now - call[2] >= SLOW and not call[3]]
        for call in overdue:
            call[3] = True
            if self.config.mode == "consecutive":
                self.window.append((False, True))
        if overdue and self.tripped():
            self.move("open")

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 100), failed=st.booleans())
    def end_call(self, which: int, failed: bool) -> None:
        permit, period, began, counted = self.calls.pop(which % len(self.calls))
        seconds = self.now - began
        if failed:
            self.breaker.failed(permit, OSError(), seconds)
        else:
            self.breaker.succeeded(permit, seconds)
        if period != self.period or (counted and self.config.mode == "consecutive"):
            return
        slow = seconds >= SLOW
        bad = failed or slow
        if self.state == "half-open":
            self.probes_out -= 1
            if bad:
                self.reopened += 1
                self.move("open")
            else:
                self.probes_ok += 1
                if self.probes_ok == self.config.probes:
                    self.move("closed")
        elif self.state == "closed":
            self.window.append((failed, slow))
            if bad and self.tripped():
                self.move("open")

    def tripped(self) -> bool:
        if self.config.mode == "consecutive":
            in_a_row = itertools.takewhile(any, reversed(self.window))
            return len(list(in_a_row)) >= self.config.fail_max
        recent = self.window[-self.config.window_calls :]
        recent = recent + [(False, True) for call in self.calls if call[3] and call[1] == self.period]
        if len(recent) < self.config.minimum_calls:
            return False
        failures, slows = sum(failed for failed, _ in recent), sum(slow for _, slow in recent)
        return failures >= self.config.failure_rate * len(recent) or slows >= self.config.slow_rate * len(recent)

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 100))
    def cancel_call(self, which: int) -> None:
        permit, period, began, counted = self.calls.pop(which % len(self.calls))
        slow = self.now - began >= SLOW
        self.breaker.failed(permit, KeyboardInterrupt(), self.now - began)
        if period != self.period or (counted and self.config.mode == "consecutive"):
            return
        if self.state == "half-open":
            self.probes_out -= 1
            if slow:
                self.reopened += 1
                self.move("open")
        elif slow:
            self.window.append((False, True))
            if self.tripped():
                self.move("open")

    @invariant()
    def same_state(self) -> None:
        if hasattr(self, "breaker"):
            assert self.breaker.current_state == self.state


BreakerMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestBreakerMachine = BreakerMachine.TestCase


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=80), st.integers(1, 20), st.integers(1, 20))
def test_count_window_keeps_last_calls_when_resized(calls: list[tuple[bool, bool]], size: int, other: int) -> None:
    window = CountWindow(size)
    for failed, slow in calls:
        window.record(0.0, failed, slow)
    for kept, seen in ((calls[-size:], window), (calls[-size:][-other:], window.resized(other))):
        counts = seen.counts(0.0)
        assert (counts.calls, counts.failures, counts.slow) == (
            len(kept),
            sum(failed for failed, _ in kept),
            sum(slow for _, slow in kept),
        )


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=60), st.floats(0, 30))
def test_time_window_expires_calls_in_tenths(calls: list[tuple[float, bool]], later: float) -> None:
    window, now, seen = TimeWindow(10.0), 5.0, []
    for gap, failed in calls:
        now += gap
        window.record(now, failed, slow=False)
        seen.append((now, failed))
    end = now + later
    counts = window.counts(end)
    kept = [failed for at, failed in seen if math.floor(at) > math.floor(end) - 10]
    assert (counts.calls, counts.failures) == (len(kept), sum(kept))


def fail() -> None:
    raise ConnectionError


def failing(breaker: ResilientCircuitBreaker, times: int) -> None:
    for _ in range(times):
        with pytest.raises(ConnectionError):
            breaker.call(fail)


def test_concurrent_threads_get_exactly_the_allowed_probes() -> None:
    now = [0.0]
    breaker = ResilientCircuitBreaker("probes", 1, 1.0, probes=7, clock=lambda: now[0])
    failing(breaker, 1)
    now[0] = 2.0
    ready = threading.Barrier(100, timeout=30)
    admitted: list[int] = []

    def ask() -> None:
        ready.wait()
        for _ in range(10):
            try:
                admitted.append(breaker.acquire())
            except CircuitBreakerError:
                continue

    threads = [threading.Thread(target=ask) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(admitted) == 7


def test_open_breaker_reports_retry_after() -> None:
    now = [0.0]
    breaker = ResilientCircuitBreaker("wait", 1, 10.0, clock=lambda: now[0])
    failing(breaker, 1)
    now[0] = 4.0
    with pytest.raises(CircuitBreakerError, match="wait is open") as caught:
        breaker.call(fail)
    assert caught.value.retry_after == pytest.approx(6.0)


def test_jitter_spreads_the_open_time() -> None:
    now = [0.0]
    draws = iter([0.0, 1.0])
    config = BreakerConfig(fail_max=1, open_seconds=10.0, open_jitter=0.2)
    breaker = ResilientCircuitBreaker("jitter", config=config, clock=lambda: now[0], random=lambda: next(draws))
    failing(breaker, 1)  # opens for 8 s
    now[0] = 8.0
    failing(breaker, 1)  # a probe: opens for 12 s
    now[0] = 19.9
    with pytest.raises(CircuitBreakerError):
        breaker.call(fail)
    now[0] = 20.0
    assert breaker.call(lambda: 1) == 1


def test_pybreaker_listeners_are_notified() -> None:
    seen: list[str] = []

    class Listener(CircuitBreakerListener):
        def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
            seen.append(f"{cb.name}: {old_state.name} -> {new_state.name}")

        def failure(self, cb: Any, exc: BaseException) -> None:
            seen.append(type(exc).__name__)

        def success(self, cb: Any) -> None:
            seen.append("success")

    now = [0.0]
    breaker = ResilientCircuitBreaker("l", 1, 1.0, clock=lambda: now[0], listeners=(Listener(),))
    breaker.call(lambda: 1)
    failing(breaker, 1)
    now[0] = 2.0
    breaker.call(lambda: 1)
    assert seen == [
        "success",
        "ConnectionError",
        "l: closed -> open",
        "l: open -> half-open",
        "success",
        "l: half-open -> closed",
    ]


@pytest.mark.parametrize("forced", ["open", "closed"])
def test_forced_state_holds_until_lifted(forced: Any) -> None:
    breaker = ResilientCircuitBreaker("f", config=BreakerConfig(fail_max=2, forced=forced))
    told: list[str] = []
    stop = events.subscribe(lambda event: told.append(event.value) if event.kind == "breaker_state" else None)
    try:
        if forced == "open":
            with pytest.raises(CircuitBreakerError):
                breaker.call(lambda: 1)
        else:
            failing(breaker, 5)
        assert breaker.current_state == forced
        breaker.configure(BreakerConfig(fail_max=2))
        assert breaker.current_state == "closed"
        assert told == (["closed"] if forced == "open" else [])
    finally:
        stop()


def configs() -> dict[str, Callable[[BreakerConfig], BreakerConfig]]:
    return {
        "count": lambda config: BreakerConfig(mode="count", window_calls=20, minimum_calls=4, failure_rate=1.0),
        "time": lambda config: BreakerConfig(mode="time", window_seconds=20.0, minimum_calls=4, failure_rate=1.0),
        "consecutive": lambda config: BreakerConfig(fail_max=4),
    }


@pytest.mark.parametrize("mode", ["count", "time", "consecutive"])
def test_breaker_reload_keeps_its_window(mode: Any) -> None:
    before = BreakerConfig(mode=mode, fail_max=9, window_calls=9, window_seconds=9.0, minimum_calls=9)
    breaker = ResilientCircuitBreaker("r", config=before, clock=lambda: 100.0)
    failing(breaker, 3)
    breaker.configure(configs()[mode](before))
    assert breaker.fail_counter == 3
    failing(breaker, 1)
    assert breaker.current_state == "open"


def test_breaker_reload_keeps_original_open_time() -> None:
    now = [0.0]
    breaker = ResilientCircuitBreaker("o", 1, 10.0, clock=lambda: now[0])
    failing(breaker, 1)
    breaker.configure(BreakerConfig(mode="count", open_seconds=1.0))
    now[0] = 9.0
    with pytest.raises(CircuitBreakerError):
        breaker.call(fail)
    now[0] = 10.0
    assert breaker.call(lambda: 1) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"fail_max": 0},
        {"probes": 0},
        {"open_seconds": -1.0},
        {"failure_rate": 0.0},
        {"open_jitter": 1.0},
        {"open_growth": 0.5},
        {"window_calls": 0},
        {"slow_seconds": 0.0},
    ],
)
def test_invalid_breaker_configuration_is_rejected(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="circuit breaker x"):
        ResilientCircuitBreaker("x", config=BreakerConfig(**wrong))
