"""Durations, error codes, criticality, events, deadlines and timeouts of the resilience package."""

import asyncio
import time
from collections.abc import Callable

import httpx
import pytest
from pydantic import TypeAdapter, ValidationError

from aurum.resilience import (
    CircuitBreakerError,
    Criticality,
    DeadlineExceededError,
    ErrorClassifier,
    LimitExceededError,
    TimeoutConfig,
    criticality_scope,
    current_criticality,
    deadline_scope,
    events,
    received_deadline,
    remaining,
)
from aurum.resilience.criticality import stated_criticality
from aurum.resilience.deadline import deadline
from aurum.resilience.durations import Duration, Seconds, format_duration, parse_duration
from aurum.resilience.errors import code_of, no_retry_after
from tests.support.resilience import Clock, listening


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (0.001, "1ms"),
        (0.25, "250ms"),
        (0.9995, "999.5ms"),
        (1.0, "1s"),
        (1.5, "1.5s"),
        (90.0, "90s"),
        (-0.5, "-0.5s"),
    ],
)
def test_duration_is_formatted_in_ms_below_one_second(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (3, "3 has no unit; write 3s or 3ms"),
        (0.5, "0.5 has no unit; write 0.5s or 0.5ms"),
        (True, "True is not a duration; write a number with ms, s, m or h, such as 250ms or 1.5s"),
        ("5 s", "'5 s' is not a duration; write a number with ms, s, m or h, such as 250ms or 1.5s"),
        (None, "None is not a duration; write a number with ms, s, m or h, such as 250ms or 1.5s"),
    ],
)
def test_duration_error_suggests_valid_format(given: object, problem: str) -> None:
    with pytest.raises(ValueError, match="write") as caught:
        parse_duration(given)
    assert str(caught.value) == problem


def test_duration_accepts_seconds_type_or_text_with_unit() -> None:
    adapter: TypeAdapter[float] = TypeAdapter(Duration)
    assert adapter.validate_python(Seconds(2.5)) == 2.5
    assert type(adapter.validate_python(Seconds(2.5))) is float
    assert adapter.validate_python("2m") == 120.0
    assert adapter.dump_python(0.25) == "250ms"
    with pytest.raises(ValidationError, match=r"2.5 has no unit"):
        adapter.validate_python(2.5)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CircuitBreakerError("x"), "CIRCUIT_OPEN"),
        (LimitExceededError("x"), "LIMIT_EXCEEDED"),
        (TimeoutError(), "DEADLINE_EXCEEDED"),
        (DeadlineExceededError(), "DEADLINE_EXCEEDED"),
        (asyncio.CancelledError(), "CANCELLED"),
        (ConnectionRefusedError(), "UNAVAILABLE"),
        (OSError(), "UNAVAILABLE"),
        (ValueError(), "UNKNOWN"),
    ],
)
def test_error_maps_to_status_code(error: BaseException, code: str) -> None:
    assert code_of(error) == code
    assert ErrorClassifier().code(error) == code
    assert ErrorClassifier().retry_after(error) is None
    assert no_retry_after(error) is None


def test_criticality_is_parsed_in_any_case() -> None:
    assert [Criticality.parse(name) for name in ("ALARM", "telemetry", "Query", "bAtCh")] == list(Criticality)
    assert Criticality.parse("urgent") is None


def test_criticality_applies_within_its_scope() -> None:
    assert (stated_criticality(), current_criticality()) == (None, Criticality.QUERY)
    with criticality_scope(Criticality.ALARM):
        assert (stated_criticality(), current_criticality()) == (Criticality.ALARM, Criticality.ALARM)
        with criticality_scope(Criticality.BATCH):
            assert (stated_criticality(), current_criticality()) == (Criticality.BATCH, Criticality.BATCH)
        assert current_criticality() is Criticality.ALARM
    assert stated_criticality() is None


def test_event_is_delivered_until_listener_unsubscribes() -> None:
    told: list[tuple[int, events.Event]] = []
    stops: list[Callable[[], None]] = [
        events.subscribe(lambda event, number=number: told.append((number, event)))  # type: ignore[misc]
        for number in (1, 2)
    ]
    first = events.Event("retry", "p", "OSError")
    events.emit("retry", "p", "OSError")
    stops[0]()
    events.emit("budget_exhausted", "p")
    stops[1]()
    events.emit("hedge", "p", "2")
    assert told == [(1, first), (2, first), (2, events.Event("budget_exhausted", "p", ""))]


def test_listener_may_unsubscribe_during_delivery() -> None:
    told: list[str] = []

    def once(event: events.Event) -> None:
        told.append(f"once {event.kind}")
        stop()

    stop = events.subscribe(once)
    with listening() as all_told:
        events.emit("hedge", "p", "2")
        events.emit("retry", "p", "x")
    assert told == ["once hedge"]
    assert all_told == [("hedge", "p", "2"), ("retry", "p", "x")]


@pytest.mark.parametrize(
    ("outer", "inner", "left"), [(10.0, 20.0, 10.0), (10.0, 3.0, 3.0), (10.0, None, 10.0), (None, 0.5, 0.5)]
)
def test_earlier_deadline_applies(outer: float | None, inner: float | None, left: float) -> None:
    clock = Clock(100.0)
    with deadline_scope(outer, clock):
        before = remaining(clock)
        with deadline_scope(inner, clock):
            assert remaining(clock) == left
        assert remaining(clock) == before == outer
    assert remaining(clock) is None


def test_remaining_time_shrinks_to_zero() -> None:
    clock = Clock(100.0)
    with deadline_scope(2.0, clock):
        clock.now = 101.5
        assert remaining(clock) == 0.5
        clock.now = 102.0
        assert remaining(clock) == 0.0
        clock.now = 200.0
        assert remaining(clock) == 0.0


@pytest.mark.parametrize(
    ("received", "kept"),
    [(0.0, 0.0), (0.003, 0.0), (0.02, 0.015), (0.1, 0.09), (1.0, 0.9), (2.0, 1.8), (2.5, 2.25), (10.0, 9.75)],
)
def test_margin_of_received_deadline_is_bounded(received: float, kept: float) -> None:
    before = time.monotonic()
    with received_deadline(received):
        after = time.monotonic()
        at = deadline.get()
    assert at is not None
    assert before + kept - 1e-6 <= at <= after + kept + 1e-6


PHASES = ("connect", "read", "write", "pool", "db")


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_nonpositive_timeout_is_rejected_with_phase(phase: str, seconds: float) -> None:
    assert getattr(TimeoutConfig(**{phase: 0.001}), phase) == 0.001
    with pytest.raises(ValueError, match="timeout") as caught:
        TimeoutConfig(**{phase: seconds})
    assert str(caught.value) == f"timeout {phase} must be above 0 seconds, not {seconds}"


def test_timeouts_are_shortened_and_converted_for_httpx() -> None:
    config = TimeoutConfig(connect=1.0, read=2.0, write=3.0, pool=4.0, db=5.0)
    assert config.to_httpx() == httpx.Timeout(connect=1.0, read=2.0, write=3.0, pool=4.0)
    assert config.within(2.5) == TimeoutConfig(connect=1.0, read=2.0, write=2.5, pool=2.5, db=2.5)
    assert config.within(0.5) == TimeoutConfig(*[0.5] * 5)
    assert config.within(9.0) == config
