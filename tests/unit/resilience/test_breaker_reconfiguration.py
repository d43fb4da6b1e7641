"""Circuit breakers that are forced, reconfigured, or inherit the state of another."""

from typing import Any

import pytest

from aurum.resilience import BreakerConfig, CircuitBreakerError, ResilientCircuitBreaker
from aurum.resilience.windows import Counts
from tests.support.resilience import Clock, breaker_of, ends, listening, refusal


def test_breaker_forced_open_refuses_every_call() -> None:
    clock = Clock()
    breaker = breaker_of(clock, forced="open", open_seconds=3.0)
    assert breaker.current_state == "open"
    with listening() as told:
        clock.now = 100.0
        assert refusal(breaker) == ("circuit breaker b is open; the call was not made", 3.0)
        with pytest.raises(CircuitBreakerError):
            breaker.call(lambda: pytest.fail("it was made"))
    assert told == [("breaker_rejection", "b", "open")] * 2


def test_breaker_forced_closed_counts_and_never_opens() -> None:
    clock = Clock()
    breaker = breaker_of(clock, fail_max=2, forced="closed", open_seconds=10.0)
    with listening() as told:
        assert ends(breaker, "fff") == "ccc"
    assert breaker.fail_counter == 3
    assert [kind for kind, _, _ in told] == ["breaker_failure"] * 3
    breaker.configure(BreakerConfig(fail_max=2, open_seconds=10.0))
    assert ends(breaker, "f") == "o"
    breaker.configure(BreakerConfig(fail_max=2, forced="closed"))
    assert ends(breaker, "fo") == "cc"
    breaker.configure(BreakerConfig(fail_max=2, open_seconds=10.0))
    assert refusal(breaker) == ("circuit breaker b is open; the call was not made", 10.0)


def test_half_open_breaker_may_be_forced() -> None:
    clock = Clock()
    breaker = breaker_of(clock, fail_max=1, open_seconds=10.0, probes=2)
    ends(breaker, "f")
    clock.now = 10.0
    breaker.acquire()
    breaker.configure(BreakerConfig(fail_max=1, open_seconds=10.0, probes=2, forced="closed"))
    assert ends(breaker, "offf") == "cccc"
    breaker.configure(BreakerConfig(fail_max=1, open_seconds=10.0, probes=2, forced="open"))
    refusal(breaker)
    breaker.configure(BreakerConfig(fail_max=1, open_seconds=10.0, probes=2))
    assert breaker.current_state == "half-open"


def test_forced_state_change_emits_one_event() -> None:
    breaker = breaker_of(Clock(), fail_max=2)
    with listening() as told:
        breaker.configure(BreakerConfig(fail_max=3))
        breaker.configure(BreakerConfig(forced="open"))
        breaker.configure(BreakerConfig(forced="open", fail_max=3))
        breaker.configure(BreakerConfig(forced="closed"))
        breaker.configure(BreakerConfig())
    assert told == [("breaker_state", "b", "open"), ("breaker_state", "b", "closed")]


def test_reconfigured_breaker_applies_new_settings() -> None:
    clock = Clock()
    breaker = breaker_of(clock, fail_max=9, open_seconds=10.0)
    ends(breaker, "ff")
    breaker.configure(BreakerConfig(fail_max=3, open_seconds=4.0, probes=2))
    assert ends(breaker, "f") == "o"
    assert refusal(breaker)[1] == 4.0
    clock.now = 4.0
    assert ends(breaker, "oo") == "hc"
    with pytest.raises(ValueError, match="circuit breaker b"):
        breaker.configure(BreakerConfig(fail_max=0))
    assert breaker.config.fail_max == 3


@pytest.mark.parametrize("other", ["count", "time", "consecutive"])
@pytest.mark.parametrize("mode", ["count", "time", "consecutive"])
def test_window_is_cleared_when_its_kind_changes(mode: Any, other: Any) -> None:
    breaker = breaker_of(Clock(5.0), mode=mode, minimum_calls=9, fail_max=9)
    ends(breaker, "ff")
    breaker.configure(BreakerConfig(mode=other, minimum_calls=3, fail_max=3))
    assert breaker.fail_counter == (2 if mode == other else 0)
    assert ends(breaker, "f") == ("o" if mode == other else "c")


def test_success_after_reload_resets_consecutive_failures() -> None:
    breaker = breaker_of(Clock(), fail_max=3)
    ends(breaker, "ff")
    breaker.configure(BreakerConfig(fail_max=2))
    assert ends(breaker, "of") == "cc"
    assert breaker.fail_counter == 1


def test_breaker_inherits_open_state() -> None:
    clock = Clock()
    old = breaker_of(clock, "old", fail_max=1, open_seconds=10.0, open_growth=2.0)
    ends(old, "f")
    clock.now = 10.0
    ends(old, "f")  # open until 30
    clock.now = 12.0
    new = breaker_of(clock, "new", fail_max=1, open_seconds=10.0, open_growth=2.0)
    with listening() as told:
        new.inherit(old)
    assert told == [("breaker_state", "new", "open")]
    assert refusal(new) == ("circuit breaker new is open; the call was not made", 18.0)
    clock.now = 30.0
    assert ends(new, "f") == "o"
    assert refusal(new)[1] == 40.0, "it knows how often probes have failed"
    assert old.current_state == "open"


def test_breaker_inherits_window() -> None:
    clock = Clock(5.0)
    old = breaker_of(clock, "old", mode="count", window_calls=9, minimum_calls=9)
    ends(old, "ffo")
    new = breaker_of(clock, "new", mode="count", window_calls=4, minimum_calls=4)
    with listening() as told:
        new.inherit(old)
    assert told == []
    assert new.counts == Counts(3, 2, 0)
    assert ends(new, "f") == "o"
    assert old.counts == Counts(3, 2, 0)


def test_inheriting_breaker_discards_its_own_state() -> None:
    clock = Clock()
    old, new = (breaker_of(clock, name, fail_max=2, open_seconds=10.0) for name in ("old", "new"))
    late = new.acquire()
    ends(new, "ff")
    with listening() as told:
        new.inherit(old)
    assert told == [("breaker_state", "new", "closed")]
    assert new.fail_counter == 0
    new.failed(late, OSError())
    assert new.fail_counter == 0
    ends(old, "f")
    new.inherit(old)
    assert ends(new, "f") == "o"


IN_A_ROW = "circuit breaker x: fail_max and probes must be at least 1, timeout_duration at least 0"
WINDOW = "circuit breaker x: a window must hold at least one call and last longer than 0 s"
RATES = "circuit breaker x: rates must be above 0 and up to 1, open_jitter from 0 to below 1"
GROWTH = "circuit breaker x: open_growth must be at least 1 and slow_seconds above 0"


@pytest.mark.parametrize(
    ("field", "wrong", "least", "problem"),
    [
        ("fail_max", 0, 1, IN_A_ROW),
        ("probes", 0, 1, IN_A_ROW),
        ("open_seconds", -0.1, 0.0, IN_A_ROW),
        ("window_calls", 0, 1, WINDOW),
        ("window_seconds", 0.0, 0.1, WINDOW),
        ("minimum_calls", 0, 1, WINDOW),
        ("failure_rate", 0.0, 0.01, RATES),
        ("failure_rate", 1.01, 1.0, RATES),
        ("slow_rate", 0.0, 0.01, RATES),
        ("slow_rate", 1.01, 1.0, RATES),
        ("open_jitter", -0.01, 0.0, RATES),
        ("open_jitter", 1.0, 0.99, RATES),
        ("open_growth", 0.99, 1.0, GROWTH),
        ("slow_seconds", 0.0, 0.01, GROWTH),
        ("slow_seconds", -1.0, 0.5, GROWTH),
    ],
)
def test_breaker_setting_just_outside_limit_is_rejected(field: str, wrong: Any, least: Any, problem: str) -> None:
    good = ResilientCircuitBreaker("x", config=BreakerConfig(**{field: least}))
    assert getattr(good.config, field) == least
    with pytest.raises(ValueError, match="circuit breaker") as caught:
        ResilientCircuitBreaker("x", config=BreakerConfig(**{field: wrong}))
    assert str(caught.value) == problem
