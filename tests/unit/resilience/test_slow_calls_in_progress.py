"""Slow calls that still run, or that were cancelled: what the breaker knows of them, and when."""

import asyncio
from typing import Any

import pytest

from aurum.resilience import BreakerConfig, CircuitBreakerError, Pipeline, Policy
from aurum.resilience.virtual_time import VirtualLoop
from aurum.resilience.windows import Counts
from tests.support.resilience import Clock, breaker_of, ends, listening, refusal

SHARES: dict[str, Any] = {"mode": "count", "window_calls": 10, "minimum_calls": 2, "slow_seconds": 1.0}
IN_A_ROW: dict[str, Any] = {"fail_max": 2, "slow_seconds": 1.0}
both = pytest.mark.parametrize("rules", [SHARES, IN_A_ROW, {**SHARES, "mode": "time"}], ids=["count", "row", "time"])


@both
def test_slow_calls_open_breaker_before_they_end(rules: dict[str, Any]) -> None:
    clock = Clock()
    breaker = breaker_of(clock, **rules)
    permits = [breaker.acquire(), breaker.acquire()]
    clock.now = 0.999
    permits.append(breaker.acquire())
    assert breaker.current_state == "closed"
    clock.now = 1.0
    with listening() as told:
        assert refusal(breaker) == ("circuit breaker b is open; the call was not made", 60.0)
        for permit in permits:
            breaker.succeeded(permit, 9.0)
    assert told == [("breaker_state", "b", "open"), ("breaker_rejection", "b", "open")]
    assert breaker.current_state == "open"


def test_calls_become_slow_one_by_one() -> None:
    clock = Clock()
    breaker = breaker_of(clock, **{**IN_A_ROW, "fail_max": 3})
    for clock.now in (0.0, 0.4, 0.8):
        breaker.acquire()
    for clock.now in (1.0, 1.3, 1.4, 1.7):
        breaker.failed(breaker.acquire(), KeyboardInterrupt())
    clock.now = 1.8
    refusal(breaker)


@both
def test_slow_call_counts_once(rules: dict[str, Any]) -> None:
    clock = Clock()
    breaker = breaker_of(clock, **{**rules, "fail_max": 3, "minimum_calls": 3})
    slow = breaker.acquire()
    clock.now = 1.0
    breaker.failed(breaker.acquire(), KeyboardInterrupt())  # finds the slow one, and says nothing itself
    clock.now = 2.0
    breaker.failed(slow, OSError(), 2.0)
    in_a_row = "fail_max" in rules
    assert breaker.counts == (Counts(1, 1) if in_a_row else Counts(1, 1, 1))
    assert ends(breaker, "f") == "c"
    assert ends(breaker, "f") == "o"


def test_success_of_slow_call_ends_no_row() -> None:
    clock = Clock()
    breaker = breaker_of(clock, **IN_A_ROW)
    slow = breaker.acquire()
    clock.now = 1.0
    breaker.failed(breaker.acquire(), KeyboardInterrupt())
    breaker.succeeded(slow, 1.0)
    assert ends(breaker, "f") == "o"


def test_fast_success_after_slow_call_ends_row() -> None:
    clock = Clock()
    breaker = breaker_of(clock, **IN_A_ROW)
    breaker.acquire()
    clock.now = 1.0
    assert ends(breaker, "of") == "cc"
    assert breaker.fail_counter == 1


def test_share_of_slow_calls_includes_those_in_progress() -> None:
    clock = Clock()
    breaker = breaker_of(clock, **{**SHARES, "minimum_calls": 4, "slow_rate": 0.5, "failure_rate": 1.0})
    ends(breaker, "oo")
    running = [breaker.acquire()]
    clock.now = 1.0
    running.append(breaker.acquire())  # one of three calls is slow
    clock.now = 1.9
    breaker.failed(breaker.acquire(), KeyboardInterrupt())
    assert breaker.current_state == "closed"
    clock.now = 2.0
    refusal(breaker)  # two of four


def test_failures_are_compared_with_calls_in_progress() -> None:
    clock = Clock()
    breaker = breaker_of(clock, **{**SHARES, "minimum_calls": 3, "slow_rate": 1.0, "failure_rate": 0.6})
    for _ in range(2):
        breaker.acquire()
    clock.now = 1.0
    breaker.failed(breaker.acquire(), KeyboardInterrupt())
    assert ends(breaker, "f") == "c", "one of three has failed"


@both
def test_cancelled_call_counts_if_it_was_slow(rules: dict[str, Any]) -> None:
    clock = Clock()
    breaker = breaker_of(clock, **rules)
    for seconds, state in ((0.9, "closed"), (1.0, "closed"), (1.5, "open")):
        permit = breaker.acquire()
        breaker.failed(permit, asyncio.CancelledError(), seconds)
        assert breaker.current_state == state


def test_slow_probe_that_is_cancelled_reopens_breaker() -> None:
    clock = Clock()
    breaker = breaker_of(clock, fail_max=1, slow_seconds=1.0, open_seconds=5.0)
    ends(breaker, "f")
    clock.now = 5.0
    breaker.failed(breaker.acquire(), asyncio.CancelledError(), 0.9)
    assert breaker.current_state == "half-open"
    permit = breaker.acquire()
    clock.now = 8.0
    refusal(breaker)
    assert breaker.current_state == "half-open", "a probe counts when it ends"
    with listening() as told:
        breaker.failed(permit, asyncio.CancelledError(), 3.0)
    assert told == [("breaker_state", "b", "open")]
    assert refusal(breaker)[1] == 5.0


@both
def test_reload_keeps_slow_calls_in_progress(rules: dict[str, Any]) -> None:
    clock = Clock()
    rules = {**rules, "fail_max": 3, "minimum_calls": 3, "slow_rate": 0.6}
    breaker = breaker_of(clock, **rules)
    running = [breaker.acquire() for _ in range(2)]
    clock.now = 1.0
    breaker.failed(breaker.acquire(), KeyboardInterrupt())
    for probes in (2, 3, 4):
        breaker.configure(BreakerConfig(**rules, probes=probes))
        breaker.failed(breaker.acquire(), KeyboardInterrupt())
    assert breaker.current_state == "closed"
    breaker.succeeded(running.pop(), 1.0)
    assert ends(breaker, "f") == "o"


def test_reload_judges_calls_in_progress_by_new_threshold() -> None:
    clock = Clock()
    breaker = breaker_of(clock, **SHARES)
    for _ in range(2):
        breaker.acquire()
    clock.now = 1.0
    breaker.configure(BreakerConfig(**{**SHARES, "slow_seconds": 3.0}))
    breaker.failed(breaker.acquire(), KeyboardInterrupt())
    clock.now = 2.0
    breaker.configure(BreakerConfig(**{**SHARES, "slow_seconds": 2.0}))
    refusal(breaker)


def test_reload_without_threshold_forgets_slow_calls() -> None:
    clock = Clock()
    breaker = breaker_of(clock, **SHARES)
    slow = breaker.acquire()
    clock.now = 1.0
    breaker.failed(breaker.acquire(), KeyboardInterrupt())
    breaker.configure(BreakerConfig(**{**SHARES, "slow_seconds": None}))
    breaker.succeeded(slow, 1.0)
    assert breaker.counts == Counts(1, 0, 0)


def test_reload_of_mode_starts_count_of_slow_calls_anew() -> None:
    clock = Clock()
    breaker = breaker_of(clock, **SHARES)
    for _ in range(2):
        breaker.acquire()
    clock.now = 0.9
    breaker.configure(BreakerConfig(**IN_A_ROW))
    clock.now = 1.0
    refusal(breaker)


def test_forced_breaker_is_not_opened_by_slow_calls() -> None:
    clock = Clock()
    breaker = breaker_of(clock, **IN_A_ROW, forced="closed")
    for clock.now in (0.0, 1.0, 2.0, 3.0):
        breaker.acquire()
    assert breaker.current_state == "closed"
    breaker.configure(BreakerConfig(**IN_A_ROW))
    clock.now = 4.0
    refusal(breaker)


def test_slow_hedge_losers_open_breaker() -> None:
    loop = VirtualLoop()  # type: ignore[abstract]
    parts = {
        "hedge": {"delay": "500ms"},
        "circuitBreaker": {"mode": "count", "windowCalls": 8, "minimumCalls": 4, "slowCall": "600ms"}
        | {"slowCallRate": 0.5},
        "retry": {"maxAttempts": 1, "budgetFloor": 9},
    }
    pipeline = Pipeline("h", Policy.model_validate({"target": "a/b/C", **parts}), clock=loop.time)
    breaker = pipeline.breaker
    assert breaker is not None
    attempts = 0

    async def attempt(timeout: float) -> None:
        nonlocal attempts
        attempts += 1
        await asyncio.sleep(1.5 if attempts % 2 else 0.2)

    async def main() -> None:
        await pipeline.call_async(attempt)
        assert breaker.counts == Counts(1, 0, 0)
        await asyncio.sleep(0)
        assert breaker.counts == Counts(2, 0, 1), "the loser had taken 700 ms when it was cancelled"
        await pipeline.call_async(attempt)
        await asyncio.sleep(0)
        with pytest.raises(CircuitBreakerError):
            await pipeline.call_async(attempt)

    loop.run(main())
    assert pipeline.limit.in_flight == 0
