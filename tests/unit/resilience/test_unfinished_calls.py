"""Functions that return before their work is done, given to calls that block."""

import gc
import time
import warnings
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

import pytest

from aurum.resilience import ResilientCircuitBreaker, RetryPolicy, with_retry
from aurum.resilience.circuit_breaker import CircuitBreakerListener
from aurum.resilience.windows import Counts
from tests.support.resilience import Clock, breaker_of, ends, listening


async def coroutine(*_: object, **__: object) -> None:
    raise OSError


def generator(*_: object, **__: object) -> Generator[int]:
    yield 1
    raise OSError


async def asynchronous_generator(*_: object, **__: object) -> AsyncGenerator[int]:
    yield 1
    raise OSError


KINDS: dict[str, Callable[..., Any]] = {
    "a coroutine": coroutine,
    "a generator": generator,
    "an asynchronous generator": asynchronous_generator,
    "a coroutine, from a lambda": lambda *_, **__: coroutine(),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def refused(call: Callable[[], Any]) -> str:
    """The error's message; fails on a coroutine that was never awaited."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(TypeError) as caught:
            call()
        gc.collect()
    return str(caught.value)


def expected(kind: str, awaited: str, iterated: str) -> str:
    what = kind.partition(",")[0]
    return f"the function returned {what}, which has yet to run; use {awaited if 'coroutine' in what else iterated}"


@kinds
@pytest.mark.parametrize("rules", [{}, {"mode": "count"}, {"slow_seconds": 1.0}], ids=["quick", "count", "slow"])
def test_breaker_call_refuses_unfinished_work(kind: str, rules: dict[str, Any]) -> None:
    breaker = breaker_of(Clock(), **rules)
    iterated = "`with breaker.guard():` around its iteration"
    with listening() as told:
        for options in ({}, {"name": 1}):
            message = refused(lambda: breaker.call(KINDS[kind], 1, **options))  # noqa: B023 - it is called at once
            assert message == "circuit breaker b: call: " + expected(kind, "call_async", iterated)
    assert breaker.counts == Counts()
    assert told == []


def test_unfinished_probe_is_given_back() -> None:
    clock = Clock()
    breaker = breaker_of(clock, fail_max=1, open_seconds=10.0)
    ends(breaker, "f")
    clock.now = 10.0
    refused(lambda: breaker.call(coroutine))
    assert ends(breaker, "o") == "c"


def test_listeners_are_not_told_of_unfinished_work() -> None:
    class Listener(CircuitBreakerListener):
        def failure(self, cb: Any, exc: BaseException) -> None:
            pytest.fail("it was no failure")

        def success(self, cb: Any) -> None:
            pytest.fail("it was no success")

    refused(lambda: ResilientCircuitBreaker("b", listeners=(Listener(),)).call(generator))


@kinds
def test_retry_call_refuses_unfinished_work(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("it waited"))
    policy = RetryPolicy(3, name="r")
    told = expected(kind, "call_async or with_async_retry", "a function that iterates it")
    assert refused(lambda: policy.call(KINDS[kind])) == f"retry r: {told}"
    decorated = with_retry()(coroutine)
    assert refused(decorated).startswith("retry coroutine: the function returned a coroutine")
