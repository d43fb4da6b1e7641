"""A single call through an pipeline: timeouts, retries, events, records and slots."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

import pytest

from aurum.resilience import (
    CircuitBreakerError,
    Criticality,
    DeadlineExceededError,
    ErrorClassifier,
    LimitExceededError,
    Pipeline,
    Policy,
    criticality_scope,
    deadline_scope,
    remaining,
)
from aurum.resilience.pipeline import attempt_seconds
from aurum.resilience.policy import parse_policy_document
from aurum.resilience.shadow import Shadows
from aurum.resilience.virtual_time import VirtualLoop
from aurum.resilience.windows import Counts
from tests.support.resilience import listening

Record = tuple[str, float, str, int]


class FailedError(Exception):
    """Fails with the code that it is made of."""


ERRORS = ErrorClassifier(
    code=lambda error: (
        str(error)
        if isinstance(error, FailedError)
        else {"CircuitBreakerError": "OPEN", "LimitExceededError": "LIMIT"}.get(type(error).__name__, "OTHER")
    ),
    retry_after=lambda error: 0.5 if isinstance(error, FailedError) else None,
)
ONCE = {"maxAttempts": 1}
OFF = {"enabled": False}


class Bench:
    """A pipeline whose attempts take and raise what is listed, the last of it again and again."""

    def __init__(self, *ends: tuple[float, str], **parts: Any) -> None:
        self.loop = VirtualLoop(100.0)
        self.now: Callable[[], float] = self.loop.time
        policy = Policy.model_validate({"target": "a/b/C", "retry": ONCE, **parts})
        self.pipeline = Pipeline("p", policy, errors=ERRORS, clock=self.now)
        self.records: list[Record] = []
        self.pipeline.record = lambda target, seconds, code, number: self.records.append(
            (target, round(seconds, 6), code, number)
        )
        self.ends = list(ends)
        self.timeouts: list[float] = []
        self.left: list[float | None] = []

    def _next(self, timeout: float) -> tuple[float, str]:
        self.timeouts.append(round(timeout, 6))
        left = remaining(self.now)
        self.left.append(None if left is None else round(left, 6))
        return self.ends.pop(0) if len(self.ends) > 1 else self.ends[0]

    async def attempt(self, timeout: float) -> str:
        seconds, code = self._next(timeout)
        await asyncio.sleep(seconds)
        if code != "OK":
            raise FailedError(code)
        return code

    def call(self, **options: Any) -> str:
        return self.loop.run(self.pipeline.call_async(self.attempt, **options))

    @property
    def breaker(self) -> Any:
        assert self.pipeline.breaker
        return self.pipeline.breaker


def test_attempt_receives_timeout_and_deadline() -> None:
    bench = Bench((0.25, "OK"), timeout={"attempt": "2s", "deadline": "5s"})
    assert bench.call() == "OK"
    with deadline_scope(3.0, bench.now):
        bench.call()
    with deadline_scope(0.5, bench.now):
        bench.call(target="x/y/Z")
    with deadline_scope(50.0, bench.now):
        bench.call()
    assert bench.timeouts == [2.0, 2.0, 0.5, 2.0]
    assert bench.left == bench.timeouts, "what is called within an attempt has the attempt's time"
    assert remaining(bench.now) is None
    assert bench.records == [("p", 0.25, "OK", 1), ("p", 0.25, "OK", 1), ("x/y/Z", 0.25, "OK", 1), ("p", 0.25, "OK", 1)]
    assert bench.pipeline.limit.in_flight == 0
    assert attempt_seconds(bench.pipeline.policy) == 2.0


def test_expired_deadline_is_reported_and_recorded() -> None:
    bench = Bench((0.0, "OK"))
    with deadline_scope(0.0, bench.now), pytest.raises(DeadlineExceededError) as caught:
        bench.call()
    assert str(caught.value) == "p: the deadline passed before the call was made"
    assert bench.records == [("p", 0.0, "OTHER", 1)]
    assert bench.breaker.counts == Counts()
    assert bench.timeouts == []
    assert bench.pipeline.limit.in_flight == 0


def test_failed_attempt_is_retried_after_requested_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    retry = {"maxAttempts": 3, "baseDelay": "0s", "maxDelay": "0s", "budgetFloor": 9, "retryOn": ["ABORTED"]}
    bench = Bench((0.25, "ABORTED"), (0.5, "ABORTED"), (0.125, "OK"), retry=retry, circuitBreaker=OFF)
    monkeypatch.setattr(time, "sleep", lambda seconds: setattr(bench.clock, "now", bench.loop.now + seconds))
    with listening() as told:
        assert bench.call(target="x/y/Z") == "OK"
    assert bench.records == [("x/y/Z", 0.25, "ABORTED", 1), ("x/y/Z", 0.5, "ABORTED", 2), ("x/y/Z", 0.125, "OK", 3)]
    assert told == [("retry", "p", "FailedError")] * 2
    assert bench.now() == pytest.approx(100.0 + 0.875 + 2 * 0.5)
    assert bench.left == [2.0, 2.0, 2.0]
    assert bench.pipeline.retry.max_attempts == 3


@pytest.mark.parametrize(("code", "idempotent"), [("NOT_FOUND", True), ("ABORTED", False)])
def test_non_retryable_failure_is_raised(code: str, idempotent: bool) -> None:
    bench = Bench((0.25, code), retry={"maxAttempts": 3, "retryOn": ["ABORTED"]})
    with pytest.raises(FailedError, match=code):
        bench.call(idempotent=idempotent)
    assert bench.records == [("p", 0.25, code, 1)]
    assert bench.pipeline.limit.in_flight == 0


def test_retry_beyond_deadline_is_not_attempted() -> None:
    retry = {"maxAttempts": 3, "budgetFloor": 9}
    bench = Bench((0.6, "ABORTED"), retry=retry, timeout={"attempt": "1s", "deadline": "1100ms"})
    with listening() as told, pytest.raises(FailedError):
        bench.call()
    assert told == [("retry_exhausted", "p", "FailedError")]
    assert len(bench.records) == 1


def test_each_call_earns_budget_once() -> None:
    bench = Bench((0.0, "OK"), retry={**ONCE, "budgetRatio": 0.5, "budgetFloor": 0})
    for _ in range(3):
        bench.call()
    assert bench.pipeline.budget.tokens == 1.5
    assert (bench.pipeline.budget.name, bench.pipeline.budget.floor) == ("p", 0.0)


def test_breaker_counts_failure_codes_and_records_refusals() -> None:
    breaker = {"failMax": 2, "failureCodes": ["INTERNAL"], "open": "9s", "openJitter": 0}
    bench = Bench((0.0, "ABORTED"), (0.0, "INTERNAL"), circuitBreaker=breaker)
    for _ in range(3):
        with pytest.raises(FailedError):
            bench.call()
    with listening() as told, pytest.raises(CircuitBreakerError):
        bench.call()
    assert told[0] == ("breaker_rejection", "p", "open")
    assert [code for _, _, code, _ in bench.records][:3] == ["ABORTED", "INTERNAL", "INTERNAL"]
    assert len(bench.timeouts) == 3
    assert len(bench.records) == 4
    assert bench.pipeline.limit.in_flight == 0


@pytest.mark.parametrize(("seconds", "state"), [(0.25, "closed"), (0.5, "open")])
def test_breaker_receives_call_duration(seconds: float, state: str) -> None:
    for code in ("OK", "INTERNAL"):
        breaker = {"mode": "count", "minimumCalls": 1, "slowCall": "500ms", "failureCodes": ["ABORTED"]}
        bench = Bench((seconds, code), circuitBreaker=breaker)
        bench.pipeline.record = None
        with contextlib.suppress(FailedError):
            bench.call()
        assert bench.breaker.current_state == state


def test_limit_rejection_is_recorded() -> None:
    bench = Bench((0.0, "OK"), bulkhead={"maxConcurrent": 1})
    assert bench.pipeline.limit.try_acquire()
    with pytest.raises(LimitExceededError, match="p: 1 calls"):
        bench.call(target="x/y/Z")
    assert bench.records == [("x/y/Z", 0.0, "LIMIT", 1)]
    assert bench.pipeline.limit.in_flight == 1
    bench.pipeline.limit.release()
    assert bench.call() == "OK"


@pytest.mark.parametrize(("code", "limit"), [("OK", 4), ("NOT_FOUND", 4), ("UNAVAILABLE", 3)])
def test_adaptive_limit_receives_overload(code: str, limit: int) -> None:
    adaptive = {"algorithm": "aimd", "initialLimit": 4, "minLimit": 1, "maxLimit": 9}
    bench = Bench((0.125, code), adaptiveConcurrency=adaptive, circuitBreaker=OFF)
    bench.pipeline.record = None
    for _ in range(2):
        with contextlib.suppress(FailedError):
            bench.call()
    assert bench.pipeline.limit.limit == limit


def test_adaptive_limit_receives_call_durations() -> None:
    adaptive = {"algorithm": "aimd", "initialLimit": 4, "minLimit": 1, "maxLimit": 9, "slowCall": "300ms"}
    for code, seconds, limit in (("OK", 0.25, 4), ("OK", 0.5, 3), ("NOT_FOUND", 0.5, 3)):
        bench = Bench((seconds, code), adaptiveConcurrency=adaptive, circuitBreaker=OFF)
        bench.pipeline.record = None
        for _ in range(10):
            with contextlib.suppress(FailedError):
                bench.call()
        assert bench.pipeline.limit.limit == limit


@pytest.mark.parametrize("timed", [True, False])
def test_only_timed_attempts_time_out(timed: bool) -> None:
    bench = Bench((3.0, "OK"), timeout={"attempt": "2s", "deadline": "5s"})
    if timed:
        with pytest.raises(DeadlineExceededError) as caught:
            bench.call()
        assert str(caught.value) == "p: no answer within 2.000 s"
        assert bench.records == [("p", 2.0, "OTHER", 1)]
    else:
        assert bench.call(timed=False) == "OK"
        assert bench.records == [("p", 3.0, "OK", 1)]
    assert bench.left == [2.0 if timed else None]


def test_waiting_for_a_slot_counts_towards_deadline() -> None:
    bulkhead = {"maxConcurrent": 1, "maxQueued": 5, "maxWait": "9s"}
    bench = Bench((1.25, "OK"), bulkhead=bulkhead, timeout={"attempt": "2s", "deadline": "3s"})

    async def main() -> list[Any]:
        calls = (bench.pipeline.call_async(bench.attempt) for _ in range(3))
        return await asyncio.gather(*calls, return_exceptions=True)

    first, second, third = bench.loop.run(main())
    assert (first, second) == ("OK", "OK")
    assert isinstance(third, DeadlineExceededError)
    assert bench.timeouts == [2.0, 1.75, 0.5]
    # The wait is not part of how long it took
    assert bench.records == [("p", 1.25, "OK", 1)] * 2 + [("p", 0.5, "OTHER", 1)]
    assert bench.loop.time() == 103.0


def test_attempt_context_applies_limit_and_breaker() -> None:
    bench = Bench((0.0, "OK"), bulkhead={"maxConcurrent": 1}, circuitBreaker={"failMax": 1, "openJitter": 0})
    with bench.pipeline.attempt("x/y/Z"):
        bench.loop.now += 30.0
        with pytest.raises(LimitExceededError), bench.pipeline.attempt():
            pytest.fail("it was made")
    with pytest.raises(ConnectionError), bench.pipeline.attempt():
        raise ConnectionError
    assert bench.records == [("x/y/Z", 30.0, "OK", 1), ("p", 0.0, "OTHER", 1)]
    assert bench.breaker.current_state == "closed"
    with pytest.raises(FailedError), bench.pipeline.attempt():
        raise FailedError("INTERNAL")
    with pytest.raises(CircuitBreakerError), bench.pipeline.attempt():
        pytest.fail("it was made")
    assert bench.pipeline.limit.in_flight == 0


def test_shadow_receives_attempts_and_outcomes() -> None:
    text = "shadows: [{target: x/y/Z, circuitBreaker: {failMax: 1, failureCodes: [INTERNAL]}}]"
    bench = Bench((0.25, "ABORTED"), (0.25, "OK"), (0.25, "INTERNAL"), circuitBreaker=OFF)
    bench.pipeline.shadows = Shadows(parse_policy_document(text, "x"), bench.now)
    (shadow,) = bench.pipeline.shadows
    for decisions in ({}, {}, {"opening": 1}):
        with contextlib.suppress(FailedError):
            bench.call(target="x/y/Z")
        assert dict(shadow.decisions) == decisions
    with pytest.raises(FailedError):
        bench.call()
    assert shadow.calls == 3


def test_reconfigured_pipeline_applies_new_policy() -> None:
    bench = Bench((0.0, "INTERNAL"), circuitBreaker={"failMax": 9})
    before = bench.pipeline.policy
    with listening() as told:
        bench.pipeline.configure(Policy.model_validate(before.model_dump(by_alias=True)))
    assert bench.pipeline.policy is before
    assert told == []
    parts: dict[str, Any] = {"target": "a/b/C", "retry": {**ONCE, "budgetRatio": 0.5, "budgetFloor": 7}}
    bench.pipeline.configure(Policy.model_validate({**parts, "circuitBreaker": {"failMax": 2}}))
    assert (bench.pipeline.budget.ratio, bench.pipeline.budget.floor) == (0.5, 7.0)
    assert bench.breaker.config.fail_max == 2
    assert bench.pipeline.limit.limit == 256
    with listening() as told:
        bench.pipeline.configure(Policy.model_validate({**parts, "bulkhead": {"maxConcurrent": 3}}))
    assert told == [("limit_change", "p", "3")]
    assert bench.breaker.config.fail_max == 5
    adaptive = {"initialLimit": 8}
    bench.pipeline.configure(Policy.model_validate({**parts, "adaptiveConcurrency": adaptive, "circuitBreaker": OFF}))
    assert bench.pipeline.limit.limit == 8
    assert bench.pipeline.breaker is None
    for _ in range(7):
        with pytest.raises(FailedError):
            bench.call()
    with listening() as told:
        bench.pipeline.configure(Policy.model_validate({**parts, "adaptiveConcurrency": adaptive}))
    assert told == [], "a limit that has not changed is left alone"


def test_call_passes_criticality_to_limit() -> None:
    bench = Bench((0.0, "OK"), bulkhead={"maxConcurrent": 1})
    assert bench.pipeline.limit.try_acquire()
    with listening() as told, criticality_scope(Criticality.BATCH), pytest.raises(LimitExceededError):
        bench.call()
    assert ("limit_rejection", "p", "batch") in told


def test_hedges_are_numbered_reported_and_recorded() -> None:
    hedge = {"delay": "100ms", "maxAttempts": 3}
    retry = {**ONCE, "budgetFloor": 2}
    bench = Bench((1.0, "OK"), (0.5, "ABORTED"), (0.25, "OK"), hedge=hedge, retry=retry, circuitBreaker=OFF)
    with listening() as told:
        assert bench.call(target="x/y/Z") == "OK"
    assert told == [("hedge", "p", "2"), ("hedge", "p", "3")]
    assert bench.records == [("x/y/Z", 0.25, "OK", 3)]
    assert bench.loop.time() == pytest.approx(100.45)
    assert bench.left == [2.0, 2.0, 2.0]
    assert bench.pipeline.limit.in_flight == 0


def test_hedged_call_is_retried_after_all_attempts_fail() -> None:
    hedge = {"delay": "100ms", "maxAttempts": 2}
    retry = {"maxAttempts": 2, "budgetFloor": 9}
    ends = [(0.25, "ABORTED"), (0.25, "ABORTED"), (0.05, "OK")]
    bench = Bench(*ends, hedge=hedge, retry=retry, circuitBreaker=OFF)
    with listening() as told:
        assert bench.call() == "OK"
    assert [(kind, value) for kind, _, value in told] == [("hedge", "2"), ("retry", "FailedError")]
    assert [(code, number) for _, _, code, number in bench.records] == [("ABORTED", 1), ("ABORTED", 2), ("OK", 2)]
    assert bench.loop.time() >= 100.35 + 0.5 + 0.05


def test_nested_pipeline_sees_timeout_of_outer_attempt() -> None:
    timeout = {"attempt": "2s", "deadline": "9s"}
    outer = Bench((0.0, "OK"), timeout=timeout)
    inner = Pipeline("i", Policy.model_validate({"target": "a/b/C", "timeout": timeout}), clock=outer.now)
    seen: list[tuple[float, float | None]] = []

    async def innermost(timeout: float) -> None:
        seen.append((round(timeout, 6), remaining(outer.now)))

    async def nested(timeout: float) -> None:
        await asyncio.sleep(0.5)
        await inner.call_async(innermost)

    def call() -> None:
        outer.loop.run(outer.pipeline.call_async(nested))

    call()
    assert seen == [(1.5, pytest.approx(1.5))]
    with deadline_scope(1.75, outer.now):
        call()
    assert seen[1:] == [(1.25, pytest.approx(1.25))]
    assert remaining(outer.now) is None
