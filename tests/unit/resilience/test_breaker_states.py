"""Circuit breaker states: transitions, open times, windows, events, and ways of calling."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from aurum.resilience import BreakerConfig, CircuitBreakerError, ResilientCircuitBreaker
from aurum.resilience.windows import Counts
from tests.support.resilience import Clock, breaker_of, ends, listening, refusal


def test_default_breaker_opens_after_five_failures_for_a_minute() -> None:
    clock = Clock(1000.0)
    breaker = ResilientCircuitBreaker(clock=clock)
    assert breaker.name == "default"
    assert breaker.config == BreakerConfig()
    assert ends(breaker, "ffffofffff") == "ccccccccco"
    clock.now = 1059.5
    assert refusal(breaker) == ("circuit breaker default is open; the call was not made", 0.5)
    clock.now = 1060.0
    breaker.acquire()
    assert breaker.current_state == "half-open"
    assert refusal(breaker)[0] == "circuit breaker default is half-open; the call was not made"


def test_breaker_accepts_separate_settings_or_config() -> None:
    one = ResilientCircuitBreaker("b", 2, 7.0, 3)
    assert (one.config.fail_max, one.config.open_seconds, one.config.probes) == (2, 7.0, 3)
    both = ResilientCircuitBreaker("b", 2, config=BreakerConfig(fail_max=4))
    assert both.config.fail_max == 4


def test_half_open_breaker_reports_retry_after() -> None:
    clock = Clock()
    breaker = breaker_of(clock, fail_max=1, open_seconds=10.0, probes=2)
    ends(breaker, "f")
    clock.now = 15.0
    breaker.acquire()
    clock.now = 18.0
    assert ends(breaker, "o") == "h"
    assert refusal(breaker)[1] == 7.0
    clock.now = 24.9
    assert refusal(breaker)[1] == pytest.approx(0.1)
    clock.now = 25.1
    assert refusal(breaker)[1] == 0.0, "the probe in progress has its place for as long as it runs"


def test_lost_probe_is_not_replaced_before_all_are_issued() -> None:
    clock = Clock()
    breaker = breaker_of(clock, fail_max=1, open_seconds=10.0, probes=2)
    ends(breaker, "f")
    clock.now = 10.0
    first = breaker.acquire()
    clock.now = 25.0
    second = breaker.acquire()
    breaker.succeeded(first)
    breaker.succeeded(second)
    assert breaker.current_state == "closed"


@pytest.mark.parametrize("growth", [1.0, 2.0])
def test_breaker_stays_open_longer_after_each_failed_probe(growth: float) -> None:
    clock = Clock()
    breaker = breaker_of(clock, fail_max=1, open_seconds=10.0, open_growth=growth, max_open_seconds=35.0)
    assert ends(breaker, "f") == "o"
    waits = []
    for _ in range(4):
        waits.append(refusal(breaker)[1])
        clock.now += waits[-1]
        assert ends(breaker, "f") == "o"
    assert waits == ([10.0] * 4 if growth == 1.0 else [10.0, 20.0, 35.0, 35.0])
    clock.now += 35.0
    assert ends(breaker, "of") == "co"
    assert refusal(breaker)[1] == 10.0, "it was closed in between"


@pytest.mark.parametrize(("drawn", "wait"), [(0.0, 7.5), (0.5, 10.0), (0.75, 11.25)])
def test_breaker_open_time_varies_by_its_jitter(drawn: float, wait: float) -> None:
    config = BreakerConfig(fail_max=1, open_seconds=10.0, open_jitter=0.25)
    breaker = ResilientCircuitBreaker("b", config=config, clock=Clock(), random=lambda: drawn)
    ends(breaker, "f")
    assert refusal(breaker)[1] == wait


def test_breaker_opens_at_failure_rate() -> None:
    parts: dict[str, Any] = {"mode": "count", "window_calls": 10, "minimum_calls": 4, "failure_rate": 0.5}
    assert ends(breaker_of(Clock(), **parts), "fffo") == "cccc", "a success does not open it"
    assert ends(breaker_of(Clock(), **parts), "offf") == "ccco"
    assert ends(breaker_of(Clock(), **parts), "ooff") == "ccco"
    assert ends(breaker_of(Clock(), **parts), "ooofff") == "ccccco"
    assert ends(breaker_of(Clock(), **parts), "oooff") == "ccccc"
    breaker = breaker_of(Clock(), **parts)
    assert breaker.counts == Counts()
    ends(breaker, "fof")
    assert (breaker.counts, breaker.fail_counter) == (Counts(3, 2, 0), 2)


def test_breaker_opens_at_slow_call_rate() -> None:
    parts: dict[str, Any] = {"mode": "count", "window_calls": 10, "minimum_calls": 2, "slow_seconds": 1.0}
    parts["slow_rate"] = 0.5
    assert ends(breaker_of(Clock(), **parts), "oooo", 0.99) == "cccc"
    assert ends(breaker_of(Clock(), **parts), "oo", 1.0) == "co"
    breaker = breaker_of(Clock(), **parts)
    assert ends(breaker, "ooo", 0.5) + ends(breaker, "oo", 2.0) == "ccccc"
    assert ends(breaker, "o", 2.0) == "o"
    all_slow = breaker_of(Clock(), **{**parts, "slow_rate": 1.0})
    assert ends(all_slow, "o", 0.5) + ends(all_slow, "ooo", 2.0) == "cccc"


def test_consecutive_slow_calls_open_breaker_and_fail_probes() -> None:
    clock = Clock()
    breaker = breaker_of(clock, fail_max=2, slow_seconds=1.0, open_seconds=10.0)
    assert ends(breaker, "oo", 1.0) == "co"
    clock.now = 10.0
    assert ends(breaker, "o", 1.0) == "o"
    clock.now = 20.0
    assert ends(breaker, "o", 0.9) == "c"


def test_breaker_forgets_calls_older_than_its_window() -> None:
    clock = Clock()
    breaker = breaker_of(clock, mode="time", window_seconds=10.0, minimum_calls=3, failure_rate=1.0)
    assert ends(breaker, "ff") == "cc"
    clock.now = 10.0
    assert breaker.counts == Counts()
    assert ends(breaker, "fff") == "cco"


def test_window_is_cleared_when_probes_close_breaker() -> None:
    clock = Clock()
    breaker = breaker_of(clock, mode="count", window_calls=9, minimum_calls=2, open_seconds=5.0, probes=2)
    assert ends(breaker, "ff") == "co"
    clock.now = 5.0
    assert ends(breaker, "oo") == "hc"
    assert breaker.counts == Counts()
    assert ends(breaker, "f") == "c"


def test_non_failure_errors_count_as_successes() -> None:
    clock = Clock()
    breaker = ResilientCircuitBreaker("b", 2, 10.0, is_failure=lambda error: isinstance(error, OSError), clock=clock)
    for error, failures in (
        (OSError(), 1),
        (CircuitBreakerError("another's"), 1),
        (KeyboardInterrupt(), 1),
        (asyncio.CancelledError(), 1),
        (ValueError(), 0),
        (OSError(), 1),
        (OSError(), 2),
    ):
        breaker.failed(breaker.acquire(), error)
        assert breaker.fail_counter == failures
    assert breaker.current_state == "open"
    clock.now = 10.0
    breaker.failed(breaker.acquire(), ValueError())
    assert breaker.current_state == "closed"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), CircuitBreakerError("another's")])
def test_inconclusive_probe_is_returned(error: BaseException) -> None:
    clock = Clock()
    breaker = breaker_of(clock, fail_max=1, open_seconds=10.0)
    late = breaker.acquire()
    ends(breaker, "f")
    clock.now = 10.0
    permit = breaker.acquire()
    breaker.failed(late, error)  # of before: it frees no place
    assert refusal(breaker)[0] == "circuit breaker b is half-open; the call was not made"
    breaker.failed(permit, error)
    assert ends(breaker, "o") == "c"


def test_outcomes_from_earlier_state_are_reported_not_counted() -> None:
    clock = Clock()
    breaker = breaker_of(clock, fail_max=1, open_seconds=10.0)
    late = [breaker.acquire() for _ in range(2)]
    ends(breaker, "f")
    clock.now = 10.0
    probe = breaker.acquire()
    with listening() as told:
        breaker.failed(late[0], ValueError())
        breaker.succeeded(late[1])
        assert breaker.current_state == "half-open"
        breaker.succeeded(probe)
    assert told == [("breaker_failure", "b", "ValueError"), ("breaker_state", "b", "closed")]


def test_breaker_emits_failure_state_and_rejection_events() -> None:
    clock = Clock()
    breaker = breaker_of(clock, fail_max=2, open_seconds=10.0)
    with listening() as told:
        ends(breaker, "off")
        refusal(breaker)
        clock.now = 10.0
        permit = breaker.acquire()
        refusal(breaker)
        breaker.failed(permit, ValueError())
        clock.now = 20.0
        ends(breaker, "o")
    assert [(kind.removeprefix("breaker_"), value) for kind, name, value in told if name == "b"] == [
        ("failure", "OSError"),
        ("failure", "OSError"),
        ("state", "open"),
        ("rejection", "open"),
        ("state", "half-open"),
        ("rejection", "half-open"),
        ("failure", "ValueError"),
        ("state", "open"),
        ("state", "half-open"),
        ("state", "closed"),
    ]


def test_breaker_events_go_only_to_given_emitter() -> None:
    told: list[tuple[str, str, str]] = []
    breaker = ResilientCircuitBreaker(
        "b", 1, clock=Clock(), emit=lambda kind, policy, value="": told.append((kind, policy, value))
    )
    with listening() as all_told:
        ends(breaker, "f")
        refusal(breaker)
    assert told == [
        ("breaker_failure", "b", "OSError"),
        ("breaker_state", "b", "open"),
        ("breaker_rejection", "b", "open"),
    ]
    assert all_told == []


async def by_call(breaker: ResilientCircuitBreaker, body: Callable[[], int]) -> int:
    return breaker.call(body)


async def by_call_async(breaker: ResilientCircuitBreaker, body: Callable[[], int]) -> int:
    async def later(first: int, *, second: int) -> int:
        return body() + first + second

    return await breaker.call_async(later, 1, second=-1)


async def by_guard(breaker: ResilientCircuitBreaker, body: Callable[[], int]) -> int:
    with breaker.guard():
        return body()


@pytest.mark.parametrize("way", [by_call, by_call_async, by_guard])
async def test_every_call_method_measures_and_counts_calls(way: Callable[..., Any]) -> None:
    clock = Clock(50.0)
    breaker = breaker_of(clock, mode="count", window_calls=9, minimum_calls=9, slow_seconds=2.0)

    def body(seconds: float, error: BaseException | None = None) -> int:
        clock.now += seconds
        if error:
            raise error
        return 7

    assert await way(breaker, lambda: body(1.9)) == 7
    assert await way(breaker, lambda: body(2.0)) == 7
    assert breaker.counts == Counts(2, 0, 1)
    for seconds in (1.0, 3.0):
        with pytest.raises(OSError, match="no"):
            await way(breaker, lambda: body(seconds, OSError("no")))  # noqa: B023 - it is awaited at once
    assert breaker.counts == Counts(4, 2, 2)
    for seconds, counts in ((1.9, Counts(4, 2, 2)), (2.0, Counts(5, 2, 3))):
        with pytest.raises(KeyboardInterrupt):
            await way(breaker, lambda: body(seconds, KeyboardInterrupt()))  # noqa: B023
        assert breaker.counts == counts


@pytest.mark.parametrize("way", [by_call, by_call_async, by_guard])
async def test_open_breaker_refuses_every_call_method(way: Callable[..., Any]) -> None:
    clock = Clock(50.0)
    breaker = breaker_of(clock, fail_max=2, open_seconds=10.0)
    calls: list[float] = []

    def body() -> int:
        calls.append(clock.now)
        raise OSError("no")

    for _ in range(2):
        with pytest.raises(OSError, match="no"):
            await way(breaker, body)
    with pytest.raises(CircuitBreakerError, match="b is open"):
        await way(breaker, body)
    assert len(calls) == 2
    clock.now = 60.0
    with pytest.raises(OSError, match="no"):
        await way(breaker, body)
    assert (len(calls), breaker.current_state) == (3, "open")


def test_breaker_call_passes_arguments() -> None:
    breaker = ResilientCircuitBreaker("b", 2)
    for _ in range(2):  # with and without failures to forget
        assert breaker.call(lambda first, *, second: first + second, "a", second="b") == "ab"
        ends(breaker, "f")
