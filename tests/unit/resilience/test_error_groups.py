"""Groups of errors, as asyncio.TaskGroup raises them, under policies."""

import asyncio

import pytest

from aurum.resilience import (
    CircuitBreakerError,
    ErrorClassifier,
    Pipeline,
    Policy,
    ResilientCircuitBreaker,
    RetryPolicy,
)
from aurum.resilience.error_groups import members
from aurum.resilience.virtual_time import VirtualLoop
from tests.support.resilience import Clock


class CodedError(Exception):
    """Fails with the code that it is made of."""


ERRORS = ErrorClassifier(
    code=lambda error: str(error) if isinstance(error, CodedError) else "UNKNOWN",
    retry_after=lambda error: {"ABORTED": 0.5, "UNAVAILABLE": 1.5}.get(str(error)),
)


def group(*codes: str) -> ExceptionGroup[Exception]:
    return ExceptionGroup("several", [CodedError(code) for code in codes])


def test_members_of_nested_groups_are_found() -> None:
    first, second, third = OSError(1), OSError(2), ValueError(3)
    nested = ExceptionGroup("outer", [first, ExceptionGroup("inner", [second, third])])
    assert members(nested) == [first, second, third]
    assert members(first) == [first]


@pytest.mark.parametrize(
    ("codes", "attempts", "seconds"),
    [
        (("ABORTED", "ABORTED"), 2, 0.5),
        (("ABORTED", "UNAVAILABLE"), 2, 1.5),
        (("ABORTED", "NOT_FOUND"), 1, 0.0),
        (("NOT_FOUND",), 1, 0.0),
    ],
)
def test_group_is_retried_if_all_its_errors_are(codes: tuple[str, ...], attempts: int, seconds: float) -> None:
    loop = VirtualLoop()  # type: ignore[abstract]
    parts = {"retry": {"maxAttempts": 2, "baseDelay": "0s", "maxDelay": "0s"}, "circuitBreaker": {"enabled": False}}
    pipeline = Pipeline("p", Policy.model_validate({"target": "a/b/C", **parts}), errors=ERRORS, clock=loop.time)
    made: list[float] = []

    async def fails(code: str) -> None:
        raise CodedError(code)

    async def attempt(timeout: float) -> None:
        made.append(loop.time())
        async with asyncio.TaskGroup() as tasks:
            for code in codes:
                tasks.create_task(fails(code))

    with pytest.raises(ExceptionGroup):
        loop.run(pipeline.call_async(attempt))
    assert (len(made), made[-1]) == (attempts, seconds)


@pytest.mark.parametrize(
    ("codes", "code"),
    [(("ABORTED", "ABORTED"), "ABORTED"), (("ABORTED", "NOT_FOUND"), "UNKNOWN"), (("NOT_FOUND",), "NOT_FOUND")],
)
def test_group_is_recorded_with_common_code(codes: tuple[str, ...], code: str) -> None:
    pipeline = Pipeline("p", Policy.model_validate({"target": "a/b/C", "retry": {"maxAttempts": 1}}), errors=ERRORS)
    recorded: list[str] = []
    pipeline.record = lambda target, seconds, code, number: recorded.append(code)

    with pytest.raises(ExceptionGroup), pipeline.attempt():
        raise group(*codes)
    assert recorded == [code]


def test_standalone_retry_asks_about_each_error_of_group() -> None:
    policy = RetryPolicy(3, 0.0, 0.0, retryable=lambda error: isinstance(error, OSError))
    assert policy.next_delay(ExceptionGroup("x", [OSError(), OSError()]), 1, None) == 0.0
    assert policy.next_delay(ExceptionGroup("x", [OSError(), ValueError()]), 1, None) is None
    assert RetryPolicy(3).next_delay(ExceptionGroup("x", [OSError(), CircuitBreakerError()]), 1, None) is None


def test_breaker_counts_group_if_one_error_is_a_failure() -> None:
    breaker = ResilientCircuitBreaker("b", 9, is_failure=lambda error: isinstance(error, OSError), clock=Clock())
    for errors, failures in (
        ([OSError()], 1),
        ([ValueError(), OSError()], 2),
        ([CircuitBreakerError()], 2),
        ([CircuitBreakerError(), OSError()], 3),
        ([ValueError()], 0),
    ):
        breaker.failed(breaker.acquire(), ExceptionGroup("x", errors))
        assert breaker.fail_counter == failures


def test_overload_in_group_lowers_adaptive_limit() -> None:
    clock = Clock()
    parts = {
        "adaptiveConcurrency": {"algorithm": "aimd", "initialLimit": 20, "minLimit": 1},
        "retry": {"maxAttempts": 1},
        "circuitBreaker": {"enabled": False},
    }
    pipeline = Pipeline("p", Policy.model_validate({"target": "a/b/C", **parts}), errors=ERRORS, clock=clock)

    def attempt() -> None:
        with pipeline.attempt():
            clock.now += 0.2
            raise group("UNAVAILABLE", "UNAVAILABLE")

    for _ in range(2):
        with pytest.raises(ExceptionGroup):
            attempt()
    assert pipeline.limit.limit < 20
