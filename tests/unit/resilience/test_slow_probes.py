"""Half-open breakers whose probes take long, are cancelled, or run through a reload."""

import asyncio
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aurum.resilience import BreakerConfig, CircuitBreakerError, Pipeline, Policy, load_policy_document
from aurum.resilience.virtual_time import VirtualLoop
from aurum.resilience.windows import Counts
from tests.support.resilience import Clock, breaker_of, ends, listening, refusal

POLICIES = Path(__file__).parents[3] / "policies.yaml"


@pytest.mark.parametrize("probes", [1, 3])
def test_slow_probes_keep_their_places_and_count(probes: int) -> None:
    clock = Clock()
    breaker = breaker_of(clock, fail_max=1, open_seconds=2.0, probes=probes)
    ends(breaker, "f")
    clock.now = 2.0
    permits = [breaker.acquire() for _ in range(probes)]
    for clock.now in (2.0, 3.9, 4.0, 100.0):
        assert refusal(breaker)[0] == "circuit breaker b is half-open; the call was not made"
    for permit in permits:
        assert breaker.current_state == "half-open"
        breaker.succeeded(permit, 98.0)
    assert breaker.current_state == "closed"


def test_slow_probe_that_fails_reopens_breaker() -> None:
    clock = Clock()
    breaker = breaker_of(clock, fail_max=1, open_seconds=2.0, probes=2)
    ends(breaker, "f")
    clock.now = 2.0
    first, second = breaker.acquire(), breaker.acquire()
    clock.now = 50.0
    breaker.failed(first, OSError(), 48.0)
    assert refusal(breaker) == ("circuit breaker b is open; the call was not made", 2.0)
    clock.now = 52.0
    third = breaker.acquire()
    breaker.succeeded(second, 50.0)  # of a period that is over
    breaker.succeeded(third, 0.0)
    assert breaker.current_state == "half-open"
    ends(breaker, "o")
    assert breaker.current_state == "closed"


def test_abandoned_guard_gives_probe_back() -> None:
    clock = Clock()
    breaker = breaker_of(clock, fail_max=1, open_seconds=2.0)
    ends(breaker, "f")
    clock.now = 2.0
    guard = breaker.guard()
    guard.__enter__()
    refusal(breaker)
    del guard
    gc.collect()
    assert ends(breaker, "o") == "c"


def test_forced_breaker_learns_from_probes_in_progress() -> None:
    clock = Clock()
    rules: dict[str, Any] = {"fail_max": 1, "open_seconds": 2.0, "probes": 2}
    breaker = breaker_of(clock, **rules)
    ends(breaker, "f")
    clock.now = 2.0
    first, second = breaker.acquire(), breaker.acquire()
    with listening() as told:
        breaker.configure(BreakerConfig(**rules, forced="closed"))
        let_through = [breaker.acquire() for _ in range(3)]
        breaker.succeeded(first)
        breaker.configure(BreakerConfig(**rules))
        for permit in let_through:  # by force, so they are no probes
            breaker.failed(permit, OSError())
        refusal(breaker)
        breaker.configure(BreakerConfig(**rules, forced="open"))
        breaker.succeeded(second)
        assert breaker.current_state == "open"
        breaker.configure(BreakerConfig(**rules))
    assert [value for kind, _, value in told if kind == "breaker_state"] == [
        "closed",
        "half-open",
        "open",
        "closed",
    ]
    assert breaker.counts == Counts()


def test_calls_let_through_by_force_count_no_more_without_it() -> None:
    clock = Clock()
    breaker = breaker_of(clock, fail_max=1, open_seconds=2.0)
    ends(breaker, "f")
    breaker.configure(BreakerConfig(fail_max=1, open_seconds=2.0, forced="closed"))
    late = breaker.acquire()
    breaker.configure(BreakerConfig(fail_max=1, open_seconds=2.0))
    clock.now = 1.5
    breaker.failed(late, OSError())
    clock.now = 2.0
    assert ends(breaker, "o") == "c", "it has been open no longer for that"


def test_reload_with_fewer_probes_closes_breaker() -> None:
    clock = Clock()
    breaker = breaker_of(clock, fail_max=1, open_seconds=2.0, probes=3)
    ends(breaker, "f")
    clock.now = 2.0
    assert ends(breaker, "oo") == "hh"
    with listening() as told:
        breaker.configure(BreakerConfig(fail_max=1, open_seconds=2.0, probes=2))
    assert told == [("breaker_state", "b", "closed")]
    assert ends(breaker, "oo") == "cc"


def test_reload_keeps_probes_in_progress() -> None:
    clock = Clock()
    breaker = breaker_of(clock, fail_max=1, open_seconds=2.0, probes=2)
    ends(breaker, "f")
    clock.now = 2.0
    permits = [breaker.acquire(), breaker.acquire()]
    breaker.configure(BreakerConfig(fail_max=9, open_seconds=5.0, probes=2, failure_rate=0.9))
    refusal(breaker)
    for permit in permits:
        breaker.succeeded(permit)
    assert breaker.current_state == "closed"


def recovery(policy: Policy, seconds: Callable[[Policy], float], took: float, outage: float) -> dict[str, int]:
    """What becomes of 10 calls a second for 300 s after an outage, if each attempt then succeeds after `took`."""
    loop = VirtualLoop()  # type: ignore[abstract]
    pipeline = Pipeline("t", policy, clock=loop.time, seconds=seconds)
    found = {"answered": 0, "refused": 0}
    down = True

    async def attempt(timeout: float) -> None:
        if down:
            raise OSError
        await asyncio.sleep(took)

    async def call() -> None:
        try:
            await pipeline.call_async(attempt)
            found["answered"] += 1
        except CircuitBreakerError:
            found["refused"] += 1
        except OSError:
            assert down

    async def main() -> None:
        nonlocal down
        calls = []
        while loop.time() < outage + 300.0:
            if down and loop.time() >= outage:
                down = False
                found.update(answered=0, refused=0)
            calls.append(asyncio.create_task(call()))
            await asyncio.sleep(0.1)
        await asyncio.gather(*calls)

    loop.run(main())
    return found


@pytest.mark.parametrize("outage", [2.1, 6.0])
@pytest.mark.parametrize("took", [1.0, 2.5, 4.0])
def test_shipped_store_policy_recovers_with_slow_statements(took: float, outage: float) -> None:
    policy = load_policy_document(POLICIES).for_call("ingestion", "store", "read")
    assert policy is not None
    found = recovery(policy, lambda each: each.timeout.db, took, outage)
    # Open for 15 s at most and give or take a tenth, then until the probe has ended
    assert found["refused"] <= 10 * (15.0 * 1.1 + took) + 1
    assert found["answered"] + found["refused"] >= 3000 - 10 * took


@pytest.mark.parametrize("open_for", ["200ms", "1s", "5s"])
def test_breaker_closes_however_long_its_probe_takes(open_for: str) -> None:
    breaker = {"open": open_for, "openJitter": 0, "openGrowth": 1}
    policy = Policy.model_validate({"target": "a/b/C", "circuitBreaker": breaker, "retry": {"maxAttempts": 1}})
    found = recovery(policy, lambda each: each.timeout.attempt, took=1.9, outage=1.0)
    assert found["refused"] <= 10 * (5.0 + 1.9) + 1
