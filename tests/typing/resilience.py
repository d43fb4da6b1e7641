"""The types of the public API of aurum.resilience, as its users see them. mypy checks this file; nothing runs it."""

from pathlib import Path
from typing import assert_type

from aurum.resilience import (
    CircuitBreakerError,
    Criticality,
    ErrorClassifier,
    Pipeline,
    PipelineRegistry,
    Policy,
    PolicyDocument,
    ResilientCircuitBreaker,
    RetryPolicy,
    TimeoutConfig,
    criticality_scope,
    current_criticality,
    deadline_scope,
    load_policy_document,
    remaining,
    with_async_retry,
    with_retry,
)


@with_retry(max_attempts=3, base_delay=0.1)
def fetch(name: str, *, times: int = 1) -> bytes:
    return name.encode() * times


@with_async_retry(max_attempts=3, base_delay=0.1)
async def fetch_async(name: str) -> bytes:
    return name.encode()


def decorators_keep_signatures() -> None:
    assert_type(fetch("a", times=2), bytes)
    fetch(1)  # type: ignore[arg-type]
    fetch("a", often=2)  # type: ignore[call-arg]


async def async_decorator_keeps_signature() -> None:
    assert_type(await fetch_async("a"), bytes)
    await fetch_async()  # type: ignore[call-arg]


def breaker_returns_what_the_call_returns(breaker: ResilientCircuitBreaker) -> None:
    assert_type(breaker.call(fetch, "a"), bytes)
    assert_type(breaker.fail_counter, int)


async def async_breaker_returns_what_the_call_returns(breaker: ResilientCircuitBreaker) -> None:
    assert_type(await breaker.call_async(fetch_async, "a"), bytes)


def retry_returns_what_the_call_returns(retry: RetryPolicy) -> None:
    assert_type(retry.call(lambda: 1.5), float)


def documents(path: Path) -> None:
    document = load_policy_document(path)
    assert_type(document, PolicyDocument)
    assert_type(document.for_call("api", "prediction", "Predict"), Policy | None)
    assert_type(document.policies, tuple[Policy, ...])
    assert_type(PipelineRegistry(document, Policy(target="*/*/*")).document, PolicyDocument)


async def pipelines_return_what_the_attempt_returns(pipeline: Pipeline) -> None:
    async def attempt(timeout: float) -> bytes:
        return b"x"

    assert_type(await pipeline.call_async(attempt), bytes)


def scopes() -> None:
    with deadline_scope(2.0), criticality_scope(Criticality.ALARM):
        assert_type(remaining(), float | None)
        assert_type(current_criticality(), Criticality)


def errors(error: CircuitBreakerError) -> None:
    assert_type(ErrorClassifier().code(error), str)
    assert_type(TimeoutConfig(0.5, 2.0, 5.0, 5.0, 10.0).to_httpx().connect, float | None)
