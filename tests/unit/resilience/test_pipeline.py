"""PipelineRegistry in virtual time: hedging, deadlines, timeouts, recorded outcomes and reloads."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import pytest

from aurum.resilience import (
    CircuitBreakerError,
    Criticality,
    DeadlineExceededError,
    ErrorClassifier,
    LimitExceededError,
    Pipeline,
    PipelineRegistry,
    Policy,
    PolicyDocument,
    criticality_scope,
    deadline_scope,
    received_deadline,
    remaining,
)
from aurum.resilience.policy import parse_policy_document
from aurum.resilience.virtual_time import VirtualLoop

T = TypeVar("T")


def policy(**parts: Any) -> Policy:
    return Policy.model_validate({"target": "a/b/C", **parts})


def run(loop: VirtualLoop, main: Coroutine[Any, Any, T]) -> tuple[T, float]:
    """The result and the virtual seconds that it took."""
    return loop.run(main), loop.time()


HEDGED = policy(hedge={"delay": "100ms", "maxAttempts": 3}, retry={"maxAttempts": 1, "budgetFloor": 10})


def test_hedge_returns_result_of_faster_attempt() -> None:
    loop = VirtualLoop()
    pipeline = Pipeline("h", HEDGED, clock=loop.time)
    began: list[float] = []
    cancelled: list[float] = []

    async def attempt(timeout: float) -> int:
        began.append(loop.time())
        number = len(began)
        try:
            await asyncio.sleep(1.5 if number == 1 else 0.02)
        except asyncio.CancelledError:
            cancelled.append(loop.time())
            raise
        return number

    assert run(loop, pipeline.call_async(attempt)) == (2, pytest.approx(0.12))
    assert began == [0.0, pytest.approx(0.1)]
    assert cancelled == [pytest.approx(0.12)]  # nobody waits for the slow one any more
    assert pipeline.limit.in_flight == 0


def test_empty_budget_prevents_hedge() -> None:
    loop = VirtualLoop()
    pipeline = Pipeline(
        "h", policy(hedge={"delay": "100ms"}, retry={"budgetFloor": 0, "budgetRatio": 0}), clock=loop.time
    )
    began = []

    async def attempt(timeout: float) -> None:
        began.append(loop.time())
        await asyncio.sleep(0.5)

    run(loop, pipeline.call_async(attempt))
    assert len(began) == 1


def test_hedged_call_fails_only_after_last_attempt() -> None:
    loop = VirtualLoop()
    pipeline = Pipeline("h", HEDGED, clock=loop.time)
    number = 0

    async def attempt(timeout: float) -> str:
        nonlocal number
        number += 1
        mine = number
        await asyncio.sleep(0.15)
        if mine == 1:
            raise ConnectionError("the first")
        return "the second"

    assert run(loop, pipeline.call_async(attempt))[0] == "the second"

    async def failing(timeout: float) -> None:
        raise ConnectionError("at once")

    with pytest.raises(ConnectionError, match="at once"):
        VirtualLoop().run(Pipeline("h", HEDGED, clock=VirtualLoop().time).call_async(failing))


def test_non_idempotent_call_is_not_hedged() -> None:
    loop = VirtualLoop()
    pipeline = Pipeline("h", HEDGED, clock=loop.time)
    began = []

    async def attempt(timeout: float) -> None:
        began.append(loop.time())
        await asyncio.sleep(0.5)

    run(loop, pipeline.call_async(attempt, idempotent=False))
    assert len(began) == 1


def test_attempt_after_timeouts_gets_remaining_time() -> None:
    loop = VirtualLoop()
    pipeline = Pipeline(
        "t",
        policy(
            timeout={"attempt": "2s", "deadline": "5s"},
            retry={"maxAttempts": 9, "baseDelay": "0s", "maxDelay": "0s", "budgetFloor": 9},
            circuitBreaker={"enabled": False},
        ),
        clock=loop.time,
    )
    timeouts: list[float] = []

    async def attempt(timeout: float) -> None:
        timeouts.append(timeout)
        assert remaining(loop.time) == pytest.approx(timeout), "what is called within it has no more time"
        await asyncio.sleep(100)

    with pytest.raises(DeadlineExceededError):
        run(loop, pipeline.call_async(attempt))
    assert timeouts == [2.0, 2.0, pytest.approx(1.0)]
    assert loop.time() == pytest.approx(5.0)


def test_nested_pipeline_is_bound_by_outer_deadline() -> None:
    loop = VirtualLoop()
    outer = Pipeline("o", policy(timeout={"attempt": "1s", "deadline": "1s"}), clock=loop.time)
    inner = Pipeline("i", policy(), clock=loop.time)
    seen: list[float] = []

    async def innermost(timeout: float) -> None:
        seen.append(timeout)

    async def attempt(timeout: float) -> None:
        await asyncio.sleep(0.4)
        await inner.call_async(innermost)

    run(loop, outer.call_async(attempt))
    assert seen == [pytest.approx(0.6)]
    assert remaining(loop.time) is None


def test_passed_deadline_prevents_call() -> None:
    loop = VirtualLoop()
    pipeline = Pipeline("d", policy(), clock=loop.time)

    async def main() -> None:
        with deadline_scope(0.1, loop.time):
            await asyncio.sleep(0.2)
            with pytest.raises(DeadlineExceededError, match="before the call was made"):
                await pipeline.call_async(lambda timeout: pytest.fail("it was made"))

    run(loop, main())
    assert pipeline.limit.in_flight == 0


@pytest.mark.parametrize(("received", "kept"), [(0.02, 0.015), (1.0, 0.9), (10.0, 9.75), (0.001, 0.0)])
def test_received_deadline_reserves_time_to_answer(received: float, kept: float) -> None:
    with received_deadline(received):
        left = remaining()
        assert left is not None
        assert left <= kept
    with received_deadline(60.0), received_deadline(None):
        assert remaining() is not None
    with received_deadline(None):
        assert remaining() is None


def test_abandoned_stream_can_be_closed_in_another_context() -> None:
    async def stream() -> AsyncIterator[int]:
        with deadline_scope(1.0), criticality_scope(Criticality.ALARM):
            yield 1

    async def main() -> None:
        left = stream()
        await asyncio.create_task(anext(left))
        await left.aclose()

    asyncio.run(main())


def test_slow_calls_open_breaker_and_are_recorded() -> None:
    loop = VirtualLoop()
    breaker = {"mode": "count", "minimumCalls": 3, "windowCalls": 5, "slowCall": "500ms", "open": "1s", "openJitter": 0}
    pipeline = Pipeline("s", policy(circuitBreaker=breaker), clock=loop.time)
    records: list[tuple[str, float, str, int]] = []
    pipeline.record = lambda target, seconds, code, attempt: records.append((target, round(seconds, 3), code, attempt))

    async def attempt(timeout: float) -> None:
        await asyncio.sleep(0.6)

    async def main() -> None:
        for _ in range(3):
            await pipeline.call_async(attempt, target="a/b/C")
        with pytest.raises(CircuitBreakerError):
            await pipeline.call_async(attempt, target="a/b/C")

    run(loop, main())
    assert records == [("a/b/C", 0.6, "OK", 1)] * 3 + [("a/b/C", 0.0, "CIRCUIT_OPEN", 1)]


def test_bulkhead_queues_and_rejects_calls() -> None:
    loop = VirtualLoop()
    pipeline = Pipeline("b", policy(bulkhead={"maxConcurrent": 2, "maxQueued": 1, "maxWait": "10s"}), clock=loop.time)
    now = most = 0

    async def attempt(timeout: float) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(1.0)
        now -= 1

    async def main() -> list[Any]:
        return await asyncio.gather(*(pipeline.call_async(attempt) for _ in range(5)), return_exceptions=True)

    results, seconds = run(loop, main())
    assert [type(result) for result in results].count(LimitExceededError) == 2
    assert (most, seconds) == (2, 2.0)


class FailedError(Exception): ...


def always_failing(pipelines: PipelineRegistry, method: str, times: int, loop: VirtualLoop) -> None:
    async def attempt(timeout: float) -> None:
        raise FailedError

    async def main() -> None:
        errors = ErrorClassifier(code=lambda error: "UNAVAILABLE")
        for _ in range(times):
            with pytest.raises((FailedError, CircuitBreakerError)):
                await pipelines.pipeline_for("api", "prediction", method, errors).call_async(attempt, idempotent=False)

    loop.run(main())


def test_reload_keeps_breaker_state_across_patterns() -> None:
    loop = VirtualLoop()
    text = "generation: {0}\npolicies: [{{target: {1}, circuitBreaker: {{failMax: 2, open: 30s, openJitter: 0}}}}]"
    document = parse_policy_document(text.format(1, "api/prediction/*"), "test")
    pipelines = PipelineRegistry(document, Policy(target="*/*/*"), clock=loop.time)
    always_failing(pipelines, "Predict", 2, loop)
    states = lambda: {each.name: each.breaker.current_state for each in pipelines if each.breaker}  # noqa: E731
    assert states() == {"api/prediction": "open"}
    pipelines.apply(parse_policy_document(text.format(2, "api/prediction/Predict"), "test"))
    assert states() == {"api/prediction/Predict": "open"}
    pipelines.apply(PolicyDocument(generation=3))
    assert states() == {"api/prediction": "open"}
    assert {each.policy.target for each in pipelines} == {"*/*/*"}


def test_instances_share_policy_and_have_own_breakers() -> None:
    loop = VirtualLoop()
    text = "generation: {0}\npolicies: [{{target: edge/inputs/*, circuitBreaker: {{failMax: {1}, openJitter: 0}}}}]"
    pipelines = PipelineRegistry(
        parse_policy_document(text.format(1, 1), "test"), Policy(target="*/*/*"), clock=loop.time
    )

    async def fails(timeout: float) -> None:
        raise ConnectionError

    async def main() -> None:
        for instance in ("hall-1", "hall-2"):
            pipeline = pipelines.pipeline_for("edge", "inputs", "Connect", ErrorClassifier(), instance=instance)
            assert pipeline.policy.target == "edge/inputs/*"
        with pytest.raises((ConnectionError, CircuitBreakerError)):
            await pipelines.pipeline_for("edge", "inputs", "Connect", ErrorClassifier(), instance="hall-1").call_async(
                fails
            )

    loop.run(main())
    states = lambda: {each.name: each.breaker.current_state for each in pipelines if each.breaker}  # noqa: E731
    assert states() == {"edge/inputs:hall-1": "open", "edge/inputs:hall-2": "closed"}
    pipelines.apply(parse_policy_document(text.format(2, 3), "test"))
    assert states() == {"edge/inputs:hall-1": "open", "edge/inputs:hall-2": "closed"}
    assert {each.breaker.config.fail_max for each in pipelines if each.breaker} == {3}


def test_calls_in_progress_keep_their_policy_on_reload() -> None:
    loop = VirtualLoop()
    pipeline = Pipeline("p", policy(bulkhead={"maxConcurrent": 1}), clock=loop.time)

    async def attempt(timeout: float) -> float:
        await asyncio.sleep(1.0)
        return timeout

    async def main() -> float:
        call = asyncio.create_task(pipeline.call_async(attempt))
        await asyncio.sleep(0.1)
        pipeline.configure(policy(timeout={"attempt": "300ms", "deadline": "300ms"}, bulkhead={"maxConcurrent": 2}))
        with pytest.raises(DeadlineExceededError):
            await pipeline.call_async(attempt)
        return await call

    assert loop.run(main()) == 2.0
    assert pipeline.limit.in_flight == 0
