"""Policies in shadow mode: decisions are counted without affecting calls."""

import asyncio

import pytest

from aurum.resilience import PipelineRegistry, events
from aurum.resilience.errors import ErrorClassifier
from aurum.resilience.policy import PolicyDocument, parse_policy_document
from aurum.runtime.policy.policies import default_policy
from aurum.runtime.settings import Settings


class FailedError(Exception):
    code = "UNAVAILABLE"


ERRORS = ErrorClassifier(code=lambda error: getattr(error, "code", "UNKNOWN"))


def document(shadow: str) -> PolicyDocument:
    return parse_policy_document(
        "{policies: [{target: a/b/*, circuitBreaker: {failMax: 1000}, retry: {maxAttempts: 1}}], "
        f"shadows: [{{target: a/b/Read, {shadow}}}]}}",
        "test",
    )


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def ends(code: str, clock: Clock, seconds: float = 0.0) -> str:
    clock.now += seconds
    if code != "OK":
        raise FailedError(code)
    return "answer"


async def call(pipelines: PipelineRegistry, method: str, code: str = "OK", seconds: float = 0.0) -> str:
    clock = pipelines._clock
    assert isinstance(clock, Clock)
    pipeline = pipelines.pipeline_for("a", "b", method, ERRORS)
    return await pipeline.call_async(lambda _: ends(code, clock, seconds), timed=False, target=f"a/b/{method}")


async def test_shadow_counts_breaker_decisions_without_blocking() -> None:
    pipelines = PipelineRegistry(
        document("circuitBreaker: {failMax: 3, open: 5s, openJitter: 0}"), default(), clock=Clock()
    )
    seen: list[events.Event] = []
    stop = events.subscribe(seen.append)
    for _ in range(5):
        with pytest.raises(FailedError):
            await call(pipelines, "Read", "UNAVAILABLE")
    assert await call(pipelines, "Read") == "answer"
    stop()
    (shadow,) = pipelines.shadows
    assert shadow.calls == 6
    assert dict(shadow.decisions) == {"opening": 1, "breaker_rejection": 3}
    assert [event.value for event in seen if event.kind == "shadow_decision"] == ["opening", *["breaker_rejection"] * 3]
    assert not [event for event in seen if event.kind in ("breaker_state", "breaker_rejection")]
    pipelines._clock.now += 10  # type: ignore[attr-defined]
    await call(pipelines, "Read")
    await call(pipelines, "Read")
    assert shadow.decisions["breaker_rejection"] == 3, "its breaker has closed again"


async def test_shadow_ignores_calls_of_other_methods() -> None:
    pipelines = PipelineRegistry(document("circuitBreaker: {failMax: 1}"), default(), clock=Clock())
    with pytest.raises(FailedError):
        await call(pipelines, "Write", "UNAVAILABLE")
    (shadow,) = pipelines.shadows
    assert shadow.calls == 0


async def test_shadow_counts_timeouts_and_limit_rejections() -> None:
    pipelines = PipelineRegistry(
        document("timeout: {attempt: 100ms}, bulkhead: {maxConcurrent: 2}"), default(), clock=Clock()
    )
    assert await call(pipelines, "Read", seconds=0.2) == "answer"
    (shadow,) = pipelines.shadows
    assert dict(shadow.decisions) == {"timeout": 1}
    gate = asyncio.Event()

    async def waits(_: float) -> None:
        await gate.wait()

    pipeline = pipelines.pipeline_for("a", "b", "Read", ERRORS)
    calls = [asyncio.create_task(pipeline.call_async(waits, timed=False, target="a/b/Read")) for _ in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    calls[4].cancel()
    gate.set()
    await asyncio.gather(*calls, return_exceptions=True)
    assert shadow.decisions["limit_rejection"] == 3
    await asyncio.gather(*(pipeline.call_async(waits, timed=False, target="a/b/Read") for _ in range(2)))
    assert shadow.decisions["limit_rejection"] == 3, "every place was given back"


async def test_shadow_state_survives_reload_until_removed() -> None:
    pipelines = PipelineRegistry(document("circuitBreaker: {failMax: 3}"), default(), clock=Clock())
    for _ in range(2):
        with pytest.raises(FailedError):
            await call(pipelines, "Read", "UNAVAILABLE")
    pipelines.apply(document("circuitBreaker: {failMax: 3}, retry: {maxAttempts: 9}"))
    with pytest.raises(FailedError):
        await call(pipelines, "Read", "UNAVAILABLE")
    (shadow,) = pipelines.shadows
    assert shadow.decisions["opening"] == 1
    pipelines.apply(PolicyDocument())
    assert not list(pipelines.shadows)
    assert pipelines.pipeline_for("a", "b", "Read", ERRORS).shadows is None


def default():
    return default_policy(Settings())
