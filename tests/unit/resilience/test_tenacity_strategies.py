"""Retry policies under tenacity's own strategies: the same attempts and waits as tenacity makes, and the own bounds."""

import asyncio
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import tenacity
import tenacity.asyncio
from hypothesis import given
from hypothesis import strategies as st

from aurum.resilience import (
    CircuitBreakerError,
    RetryBudget,
    RetryPolicy,
    deadline_scope,
    with_async_retry,
    with_retry,
)
from aurum.resilience.virtual_time import VirtualLoop
from tests.support.resilience import Clock, listening


class Scripted:
    """Answers with the outcomes that it was given, one after the other; raises those that are errors."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)
        self.calls = 0

    def __call__(self) -> Any:
        outcome = self.outcomes[min(self.calls, len(self.outcomes) - 1)]
        self.calls += 1
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def later(self) -> Any:
        return self()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of each wait, none of which takes any time."""
    found: list[float] = []
    monkeypatch.setattr(time, "sleep", lambda seconds: found.append(float(seconds)))
    return found


def outcome_of(call: Callable[[], Any]) -> tuple[Any, ...]:
    try:
        return ("result", call())
    except tenacity.RetryError as error:
        return ("exhausted", error.last_attempt.result())
    except Exception as error:
        return (type(error).__name__, str(error))


DOWN, WRONG = ConnectionError("down"), ValueError("wrong")
STRATEGIES: list[tuple[str, dict[str, Any], list[Any]]] = [
    ("stop_after_attempt", {"stop": tenacity.stop_after_attempt(4)}, [DOWN]),
    ("stop_any", {"stop": tenacity.stop_after_attempt(2) | tenacity.stop_after_delay(900)}, [DOWN]),
    ("stop_all", {"stop": tenacity.stop_after_attempt(3) & tenacity.stop_after_delay(0)}, [DOWN]),
    ("stop_after_delay", {"stop": tenacity.stop_after_delay(0)}, [DOWN]),
    ("stop_before_delay", {"stop": tenacity.stop_before_delay(5), "wait": tenacity.wait_incrementing(2, 2)}, [DOWN]),
    ("wait_fixed", {"wait": tenacity.wait_fixed(3)}, [DOWN]),
    ("wait_none", {"wait": tenacity.wait_none()}, [DOWN, 7]),
    ("wait_chain", {"wait": tenacity.wait_chain(*map(tenacity.wait_fixed, (1, 5)))}, [DOWN]),
    ("wait_combine", {"wait": tenacity.wait_fixed(3) + tenacity.wait_incrementing(1, 1)}, [DOWN]),
    ("wait_exponential", {"wait": tenacity.wait_exponential(0.5, 3)}, [DOWN]),
    ("wait_random", {"wait": tenacity.wait_random(1, 2)}, [DOWN]),
    ("wait_random_exponential", {"wait": tenacity.wait_random_exponential(2, 9)}, [DOWN]),
    ("wait_exponential_jitter", {"wait": tenacity.wait_exponential_jitter(1, 9)}, [DOWN]),
    ("wait_exception", {"wait": tenacity.wait_exception(lambda error: float(len(str(error))))}, [DOWN, WRONG]),
    ("retry_if_exception_type", {"retry": tenacity.retry_if_exception_type(OSError)}, [DOWN, WRONG, 1]),
    ("retry_if_not_exception_type", {"retry": tenacity.retry_if_not_exception_type(OSError)}, [WRONG, DOWN, 1]),
    ("retry_unless_exception_type", {"retry": tenacity.retry_unless_exception_type(OSError)}, [1, WRONG, DOWN]),
    ("retry_if_exception", {"retry": tenacity.retry_if_exception(lambda error: "down" in str(error))}, [DOWN, WRONG]),
    ("retry_if_exception_message", {"retry": tenacity.retry_if_exception_message("down")}, [DOWN, WRONG]),
    ("retry_if_result", {"retry": tenacity.retry_if_result(lambda result: result is None)}, [None, None, 4]),
    ("retry_if_result, exhausted", {"retry": tenacity.retry_if_result(lambda result: result is None)}, [None]),
    ("retry_if_not_result", {"retry": tenacity.retry_if_not_result(lambda result: result == 4)}, [1, 4]),
    ("retry_any", {"retry": tenacity.retry_if_result(bool) | tenacity.retry_if_exception_type()}, [1, DOWN, 0]),
    ("retry_all", {"retry": tenacity.retry_if_exception_type() & tenacity.retry_if_exception_message("down")}, [DOWN]),
    ("retry_never", {"retry": tenacity.retry_never}, [DOWN]),
    ("TryAgain", {"stop": tenacity.stop_after_attempt(3)}, [tenacity.TryAgain(), 5]),
    (
        "a plain function",
        {"wait": lambda state: 2.0 * state.attempt_number, "stop": lambda state: False},
        [DOWN, DOWN, 1],
    ),
]


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize(("options", "outcomes"), [row[1:] for row in STRATEGIES], ids=[row[0] for row in STRATEGIES])
def test_strategy_works_as_in_tenacity(
    waits: list[float], options: dict[str, Any], outcomes: list[Any], later: bool
) -> None:
    whole = {"stop": tenacity.stop_after_attempt(3), "wait": tenacity.wait_fixed(1)} | options
    reference = Scripted(*outcomes)
    random.seed(3)
    expected = outcome_of(lambda: tenacity.Retrying(**whole, reraise=True)(reference))
    expected_waits, waits[:] = waits[:], []
    scripted = Scripted(*outcomes)
    policy = RetryPolicy(**whole)
    random.seed(3)
    if later:
        loop = VirtualLoop()
        assert outcome_of(lambda: loop.run(policy.call_async(scripted.later))) == expected
        assert loop.time() == pytest.approx(sum(expected_waits))
    else:
        assert outcome_of(lambda: policy.call(scripted)) == expected
        assert waits == expected_waits
    assert scripted.calls == reference.calls


@pytest.mark.parametrize(
    ("options", "calls", "slept"),
    [
        ({"wait": tenacity.wait_fixed(2)}, 3, [2.0, 2.0]),
        ({"stop": tenacity.stop_after_attempt(5)}, 5, [0.0] * 4),
        ({"retry": tenacity.retry_if_exception_type(OSError)}, 3, [0.0, 0.0]),
        ({"max_attempts": 2, "wait": tenacity.wait_fixed(2)}, 2, [2.0]),
        ({"max_attempts": 1, "stop": tenacity.stop_after_attempt(2)}, 2, [0.0]),
        ({"max_attempts": 4, "base_delay": 9.0, "max_delay": 9.0, "wait": tenacity.wait_none()}, 4, [0.0] * 3),
    ],
)
def test_strategy_takes_the_place_of_its_own_field_alone(
    waits: list[float], options: dict[str, Any], calls: int, slept: list[float]
) -> None:
    scripted = Scripted(DOWN)
    policy = RetryPolicy(**{"base_delay": 0.0, "max_delay": 0.0} | options)
    assert outcome_of(lambda: policy.call(scripted)) == ("ConnectionError", "down")
    assert (scripted.calls, waits) == (calls, slept)


def test_backoff_of_a_policy_is_used_without_a_wait(waits: list[float]) -> None:
    random.seed(5)
    policy = RetryPolicy(base_delay=1.0, max_delay=3.0, stop=tenacity.stop_after_attempt(60))
    assert outcome_of(lambda: policy.call(Scripted(DOWN)))[0] == "ConnectionError"
    assert len(waits) == 59
    assert waits[0] <= 1.0 < max(waits) <= 3.0


@given(st.integers(1, 5000), st.floats(1e-6, 1e6), st.floats(1e-6, 1e6), st.integers())
def test_backoff_is_that_of_tenacity(attempt: int, one: float, other: float, seed: int) -> None:
    base, most = sorted((one, other))
    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    state.attempt_number = attempt
    random.seed(seed)
    expected = tenacity.wait_random_exponential(base, most)(state)
    random.seed(seed)
    assert RetryPolicy(3, base, most).delay(OSError(), attempt) == pytest.approx(expected)


def test_error_that_is_not_retryable_ends_the_call(waits: list[float]) -> None:
    always = tenacity.retry_always
    for error in (CircuitBreakerError("open"), KeyboardInterrupt(), asyncio.CancelledError()):
        scripted = Scripted(error)
        with pytest.raises(type(error)):
            RetryPolicy(retry=always).call(scripted)
        assert scripted.calls == 1
    scripted = Scripted(WRONG)
    with pytest.raises(ValueError, match="wrong"):
        RetryPolicy(retry=always, retryable=lambda error: isinstance(error, OSError)).call(scripted)
    assert (scripted.calls, waits) == (1, [])


@pytest.mark.parametrize(("asked", "slept"), [(None, 2.0), (1.0, 2.0), (7.0, 7.0)])
def test_retry_after_extends_a_wait_of_tenacity(waits: list[float], asked: float | None, slept: float) -> None:
    policy = RetryPolicy(wait=tenacity.wait_fixed(2), retry_after=lambda error: asked)
    assert policy.call(Scripted(DOWN, 1)) == 1
    assert waits == [slept]


def test_result_asks_for_no_longer_wait(waits: list[float]) -> None:
    policy = RetryPolicy(
        wait=tenacity.wait_fixed(2),
        retry=tenacity.retry_if_result(lambda result: not result),
        retry_after=lambda e: 9.0,
    )
    assert policy.call(Scripted(0, 1)) == 1
    assert waits == [2.0]


@pytest.mark.parametrize(("seconds", "calls"), [(100.0, 5), (1.0, 1)])
def test_strategies_keep_to_the_deadline(waits: list[float], seconds: float, calls: int) -> None:
    scripted = Scripted(DOWN)
    policy = RetryPolicy(name="r", stop=tenacity.stop_after_attempt(5), wait=tenacity.wait_fixed(2))
    with deadline_scope(seconds), listening() as told, pytest.raises(ConnectionError):
        policy.call(scripted)
    assert scripted.calls == calls
    assert told == [("retry", "r", "ConnectionError")] * (calls - 1) + [("retry_exhausted", "r", "ConnectionError")]


def test_strategies_keep_to_the_budget(waits: list[float]) -> None:
    budget = RetryBudget("b", 0.0, 2.0, clock=Clock())
    scripted = Scripted(None)
    policy = RetryPolicy(
        name="r",
        budget=budget,
        stop=tenacity.stop_never,
        retry=tenacity.retry_if_result(lambda result: result is None),
        wait=tenacity.wait_none(),
    )
    with listening() as told, pytest.raises(tenacity.RetryError):
        policy.call(scripted)
    assert scripted.calls == 3
    assert told == [("retry", "r", "result")] * 2 + [("budget_exhausted", "b", "")]
    assert budget.tokens == 0.0
    with pytest.raises(tenacity.RetryError):
        RetryPolicy(budget=RetryBudget("c", 1.0, 0.0, clock=Clock()), retry=policy.retry, base_delay=0.0).call(scripted)
    assert scripted.calls == 5, "the call itself has earned one"


def test_event_stops_attempts(waits: list[float]) -> None:
    asked = threading.Event()
    policy = RetryPolicy(stop=tenacity.stop_when_event_set(asked), wait=tenacity.wait_none())
    assert policy.call(Scripted(*[DOWN] * 20, 1)) == 1
    asked.set()
    assert outcome_of(lambda: policy.call(Scripted(DOWN))) == ("ConnectionError", "down")


def test_coroutine_function_decides_on_an_event_loop_alone() -> None:
    async def down(error: BaseException) -> bool:
        await asyncio.sleep(0)
        return "down" in str(error)

    policy = RetryPolicy(wait=tenacity.wait_fixed(1), retry=tenacity.asyncio.retry_if_exception(down))
    loop = VirtualLoop()
    assert loop.run(policy.call_async(Scripted(DOWN, 3).later)) == 3
    assert loop.time() == 1.0
    assert outcome_of(lambda: loop.run(policy.call_async(Scripted(WRONG).later))) == ("ValueError", "wrong")


def test_cancelled_call_is_not_retried() -> None:
    policy = RetryPolicy(wait=tenacity.wait_fixed(1))
    calls: list[None] = []

    async def hang() -> None:
        calls.append(None)
        await asyncio.sleep(100)

    async def main() -> None:
        task = asyncio.create_task(policy.call_async(hang))
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()

    VirtualLoop().run(main())
    assert len(calls) == 1


def test_retry_decorators_take_strategies(waits: list[float]) -> None:
    options: dict[str, Any] = {
        "stop": tenacity.stop_after_attempt(4),
        "wait": tenacity.wait_fixed(2),
        "retry": tenacity.retry_if_exception_type(OSError),
    }
    script = Scripted(DOWN, DOWN, DOWN, DOWN, WRONG)

    @with_retry(**options)
    def fetch() -> Any:
        return script()

    @with_async_retry(**options)
    async def fetch_later() -> Any:
        return script()

    with listening() as told:
        assert outcome_of(fetch) == ("ConnectionError", "down")
        assert (script.calls, waits) == (4, [2.0] * 3)
        script.calls = 3
        loop = VirtualLoop()
        assert outcome_of(lambda: loop.run(fetch_later())) == ("ValueError", "wrong")
    assert (script.calls, loop.time()) == (5, 2.0)
    assert {policy for _, policy, _ in told} == {fetch.__qualname__, fetch_later.__qualname__}
