"""Errors of those who only listen: they reach neither the call, nor its place, nor the other listeners."""

import functools
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from aurum.resilience import (
    CircuitBreakerError,
    ErrorClassifier,
    LimitExceededError,
    Pipeline,
    Policy,
    ResilientCircuitBreaker,
    events,
)
from aurum.resilience.circuit_breaker import CircuitBreakerListener
from aurum.resilience.virtual_time import VirtualLoop
from tests.support.resilience import Clock, listening

PARTS: dict[str, Any] = {
    "bulkhead": {"maxConcurrent": 2},
    "retry": {"maxAttempts": 2, "baseDelay": "0s", "maxDelay": "0s", "budgetFloor": 9},
    "circuitBreaker": {"failMax": 3, "open": "1s", "openJitter": 0, "slowCall": "1s"},
    "adaptiveConcurrency": {"algorithm": "aimd", "initialLimit": 2, "minLimit": 1, "maxLimit": 2},
}


@pytest.fixture
def failing() -> Iterator[list[str]]:
    """A listener that fails at each event; the events that it was told of."""
    told: list[str] = []

    def listener(event: events.Event) -> None:
        told.append(event.kind)
        raise RuntimeError("listener")

    stop = events.subscribe(listener)
    try:
        yield told
    finally:
        stop()


def pipeline_of(loop: VirtualLoop, errors: ErrorClassifier | None = None) -> Pipeline:
    return Pipeline("p", Policy.model_validate({"target": "a/b/C", **PARTS}), clock=loop.time, errors=errors)


def both_ways(pipeline: Pipeline, loop: VirtualLoop, error: Exception | None) -> Iterator[Callable[[], Any]]:
    """A call on the loop, and a block that makes its attempt itself."""

    def work() -> str:
        if error:
            raise error
        return "answer"

    async def attempt(timeout: float) -> str:
        return work()

    def block() -> str:
        with pipeline.attempt():
            return work()

    yield lambda: loop.run(pipeline.call_async(attempt))
    yield block


def test_listener_errors_do_not_replace_outcomes(failing: list[str]) -> None:
    loop = VirtualLoop()  # type: ignore[abstract]
    pipeline = pipeline_of(loop)
    with listening() as told:
        for call in both_ways(pipeline, loop, None):
            assert call() == "answer"
        for call in both_ways(pipeline, loop, ConnectionError("no")):
            with pytest.raises((ConnectionError, CircuitBreakerError)):
                call()
        for call in both_ways(pipeline, loop, None):
            with pytest.raises(CircuitBreakerError):
                call()
        loop.now += 9.0
        for call in both_ways(pipeline, loop, None):
            assert call() == "answer"
    assert pipeline.limit.in_flight == 0
    assert failing[1:] == [kind for kind, _, _ in told], "the one that comes after it is told as well"
    assert {"retry", "breaker_failure", "breaker_state", "breaker_rejection"} <= set(failing)


def test_record_errors_do_not_replace_outcomes() -> None:
    loop = VirtualLoop()  # type: ignore[abstract]
    pipeline = pipeline_of(loop)

    def record(*outcome: object) -> None:
        raise OSError("disk full")

    pipeline.record = record
    for call in both_ways(pipeline, loop, None):
        assert call() == "answer"
    for call in both_ways(pipeline, loop, ValueError("no")):
        with pytest.raises(ValueError, match="no"):
            call()
    for _ in range(2):
        assert pipeline.limit.try_acquire()
    for call in both_ways(pipeline, loop, None):
        with pytest.raises(LimitExceededError):
            call()
    for _ in range(2):
        pipeline.limit.release()
    assert pipeline.limit.in_flight == 0


def test_errors_of_error_view_leak_no_place() -> None:
    def code(error: BaseException) -> str:
        raise LookupError("no such code")

    loop = VirtualLoop()  # type: ignore[abstract]
    pipeline = pipeline_of(loop, ErrorClassifier(code=code))
    for _ in range(3):
        for call in both_ways(pipeline, loop, ConnectionError("no")):
            with pytest.raises(LookupError, match="no such code"):
                call()
    assert pipeline.limit.in_flight == 0


def test_errors_of_is_failure_give_probe_back() -> None:
    clock = Clock()
    known = True

    def is_failure(error: BaseException) -> bool:
        if known:
            return True
        raise LookupError("cannot say")

    breaker = ResilientCircuitBreaker("b", 1, 10.0, is_failure=is_failure, clock=clock)
    breaker.failed(breaker.acquire(), OSError())
    clock.now = 10.0
    known = False
    permit = breaker.acquire()
    with pytest.raises(LookupError):
        breaker.failed(permit, OSError())
    breaker.succeeded(breaker.acquire())
    assert breaker.current_state == "closed"


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_interrupt_in_listener_leaks_no_place(interrupt: type[BaseException]) -> None:
    def listener(event: events.Event) -> None:
        raise interrupt

    loop = VirtualLoop()  # type: ignore[abstract]
    pipeline = pipeline_of(loop)
    stop = events.subscribe(listener)
    try:
        for call in both_ways(pipeline, loop, ConnectionError("no")):
            with pytest.raises(interrupt):
                call()
    finally:
        stop()
    assert pipeline.limit.in_flight == 0


class FailingListener(CircuitBreakerListener):
    """Raises from each of pybreaker's methods, and keeps their names."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
        self.told.append(f"{old_state.name} -> {new_state.name}")
        raise RuntimeError

    def failure(self, cb: Any, exc: BaseException) -> None:
        self.told.append("failure")
        raise RuntimeError

    def success(self, cb: Any) -> None:
        self.told.append("success")
        raise RuntimeError


def test_failing_pybreaker_listeners_change_nothing() -> None:
    clock = Clock()
    first, second = FailingListener(), FailingListener()
    breaker = ResilientCircuitBreaker("b", 1, 10.0, clock=clock, listeners=(first, second))

    def fails() -> None:
        raise OSError("no")

    assert breaker.call(lambda: 7) == 7
    with pytest.raises(OSError, match="no"):
        breaker.call(fails)
    clock.now = 10.0
    assert breaker.call(lambda: 7) == 7
    assert first.told == second.told
    assert first.told == [
        "success",
        "failure",
        "closed -> open",
        "open -> half-open",
        "success",
        "half-open -> closed",
    ]


def test_first_error_of_listener_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def unlucky(event: events.Event) -> None:
        raise RuntimeError(event.value)

    name = f"{__name__}.{unlucky.__qualname__}"
    stop = events.subscribe(unlucky)
    caplog.set_level(logging.DEBUG, "aurum.resilience.events")
    try:
        for value in ("first", "second"):
            events.emit("retry", "p", value)
    finally:
        stop()
    assert [each.levelname for each in caplog.records] == ["ERROR", "DEBUG"]
    assert all(
        each.getMessage().startswith(f"{name} raised an error while it handled an event") for each in caplog.records
    )
    assert [str(each.exc_info[1]) for each in caplog.records if each.exc_info] == ["first", "second"]


def test_failing_listener_without_name_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def fails(prefix: str, event: events.Event) -> None:
        raise RuntimeError(prefix + event.value)

    events.deliver(functools.partial(fails, "un"), events.Event("retry", "p", "lucky"))
    assert "functools.partial raised an error" in caplog.text
    assert "unlucky" in caplog.text


def test_rejections_reach_an_emitter_of_its_own() -> None:
    told: list[tuple[str, str, str]] = []
    clock = Clock()
    breaker = ResilientCircuitBreaker(
        "b", 1, 10.0, clock=clock, emit=lambda kind, policy, value="": told.append((kind, policy, value))
    )
    before, events.listeners[:] = events.listeners[:], []  # as in a process in which nobody has subscribed
    try:
        breaker.failed(breaker.acquire(), OSError())
        told.clear()
        with pytest.raises(CircuitBreakerError):
            breaker.call(lambda: None)
        clock.now = 10.0
        breaker.acquire()
        with pytest.raises(CircuitBreakerError):
            breaker.acquire()
    finally:
        events.listeners[:] = before
    assert told == [
        ("breaker_rejection", "b", "open"),
        ("breaker_state", "b", "half-open"),
        ("breaker_rejection", "b", "half-open"),
    ]
