"""Retries: number of attempts, delays, retryable errors, and events."""

import asyncio
import itertools
import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from aurum.resilience import CircuitBreakerError, RetryBudget, RetryPolicy, with_async_retry, with_retry
from aurum.resilience.retry import any_error
from aurum.resilience.virtual_time import VirtualLoop
from tests.support.resilience import Clock, listening


class Flaky:
    """Fails so many times, then answers with the number of the call."""

    def __init__(self, failures: int, error: type[Exception] = ConnectionError) -> None:
        self.failures = failures
        self.error = error
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error(f"call {self.calls}")
        return self.calls

    async def later(self) -> int:
        return self()


@pytest.mark.parametrize(
    ("error", "worth_it"),
    [
        (OSError(), True),
        (ValueError(), True),
        (CircuitBreakerError("x"), False),
        (KeyboardInterrupt(), False),
        (asyncio.CancelledError(), False),
    ],
)
def test_any_error_is_retried_except_refusals_and_exits(error: BaseException, worth_it: bool) -> None:
    assert any_error(error) is worth_it
    assert (RetryPolicy(base_delay=0.0, max_delay=0.0).next_delay(error, 1, None) is not None) is worth_it


def test_retry_policy_rejects_invalid_bounds() -> None:
    assert RetryPolicy(1, 0.0, 0.0).max_attempts == 1
    assert RetryPolicy(1, 2.0, 2.0).base_delay == 2.0
    assert RetryPolicy(1, 0.5, 2.0).base_delay == 0.5
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"max_attempts": 0}, "retry r: max_attempts must be at least 1, not 0"),
        ({"base_delay": -0.1}, "retry r: base_delay must be between 0 and max_delay (10.0 s)"),
        ({"base_delay": 3.0, "max_delay": 2.0}, "retry r: base_delay must be between 0 and max_delay (2.0 s)"),
    ]
    for parts, problem in wrong:
        with pytest.raises(ValueError, match="retry r") as caught:
            RetryPolicy(name="r", **parts)
        assert str(caught.value) == problem


@pytest.mark.parametrize(("attempt", "bound"), [(1, 1.0), (2, 2.0), (3, 4.0), (4, 5.0), (9, 5.0)])
def test_backoff_is_uniform_and_doubles(attempt: int, bound: float) -> None:
    random.seed(7)
    policy = RetryPolicy(10, 1.0, 5.0)
    drawn = [policy.delay(OSError(), attempt) for _ in range(400)]
    assert 0.95 * bound < max(drawn) <= bound
    assert 0.0 <= min(drawn) < 0.05 * bound
    assert 0.4 * bound < sum(drawn) / 400 < 0.6 * bound


def test_retry_after_extends_backoff() -> None:
    asked = RetryPolicy(3, 0.5, 0.5, retry_after=lambda error: 2.0 if isinstance(error, OSError) else None)
    assert asked.delay(OSError(), 1) == 2.0
    assert asked.delay(ValueError(), 1) <= 0.5
    random.seed(5)
    little = RetryPolicy(3, 50.0, 50.0, retry_after=lambda error: 0.001)
    assert max(little.delay(OSError(), 1) for _ in range(20)) > 0.001


def test_retry_stops_at_last_attempt_and_emits_event() -> None:
    policy = RetryPolicy(3, 0.0, 0.0, "r")
    with listening() as told:
        delays = [policy.next_delay(OSError(), attempt, None) for attempt in (1, 2, 3, 4)]
    assert delays == [0.0, 0.0, None, None]
    assert told == [("retry", "r", "OSError")] * 2 + [("retry_exhausted", "r", "OSError")] * 2


@pytest.mark.parametrize(("left", "delay"), [(None, 1.5), (1.6, 1.5), (1.5, None), (1.4, None), (0.0, None)])
def test_retry_must_start_before_deadline(left: float | None, delay: float | None) -> None:
    policy = RetryPolicy(3, 0.0, 0.0, "r", retry_after=lambda error: 1.5)
    with listening() as told:
        assert policy.next_delay(OSError(), 1, left) == delay
    assert told == [("retry" if delay else "retry_exhausted", "r", "OSError")]


def test_non_retryable_error_emits_no_event() -> None:
    budget = RetryBudget("b", clock=Clock())
    policy = RetryPolicy(3, 0.0, 0.0, retryable=lambda error: isinstance(error, OSError), budget=budget)
    with listening() as told:
        assert policy.next_delay(ValueError(), 1, None) is None
    assert told == []
    assert budget.tokens == 1.0


def test_retry_withdraws_token_from_budget() -> None:
    budget = RetryBudget("b", clock=Clock())
    policy = RetryPolicy(9, 0.0, 0.0, "r", budget=budget)
    with listening() as told:
        assert policy.next_delay(OSError(), 9, None) is None  # the last attempt costs nothing
        assert budget.tokens == 1.0
        assert policy.next_delay(OSError(), 1, None) == 0.0
        assert policy.next_delay(OSError(), 2, None) is None
    assert [kind for kind, _, _ in told] == ["retry_exhausted", "retry", "budget_exhausted"]


@pytest.mark.parametrize("failures", [0, 1, 2, 3])
def test_call_is_retried_until_it_succeeds(failures: int) -> None:
    policy = RetryPolicy(3, 0.0, 0.0)
    for call, flaky in (
        (policy.call, sync := Flaky(failures)),
        (lambda func: VirtualLoop().run(policy.call_async(func)), later := Flaky(failures)),
    ):
        func: Any = flaky if flaky is sync else flaky.later
        if failures < 3:
            assert call(func) == failures + 1
        else:
            with pytest.raises(ConnectionError, match="call 3"):
                call(func)
    assert sync.calls == later.calls == min(failures + 1, 3)


@pytest.mark.parametrize("later", [False, True])
def test_each_call_deposits_once_into_the_budget(later: bool) -> None:
    budget = RetryBudget("b", 1.0, 0.0, clock=Clock())
    policy = RetryPolicy(5, 0.0, 0.0, budget=budget)
    flaky = Flaky(1)
    loop = VirtualLoop()
    assert (loop.run(policy.call_async(flaky.later)) if later else policy.call(flaky)) == 2
    assert budget.tokens == 0.0  # one earned, one spent
    assert (loop.run(policy.call_async(flaky.later)) if later else policy.call(flaky)) == 3
    assert budget.tokens == 1.0


def test_retried_call_waits_between_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    policy = RetryPolicy(4, 0.0, 9.0, retry_after=lambda error: 1.5)
    assert policy.call(Flaky(2)) == 3
    assert waits == [1.5, 1.5]
    loop = VirtualLoop()
    assert loop.run(policy.call_async(Flaky(3).later)) == 4
    assert loop.time() == 4.5


def decorated_async(calls: list[float], loop: VirtualLoop, **options: Any) -> Callable[[], Any]:
    @with_async_retry(**options)
    async def fetch() -> None:
        calls.append(loop.time())
        raise ConnectionError

    return fetch


def test_retry_decorators_have_default_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    random.seed(11)
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    firsts: list[float] = []
    for _ in range(60):
        calls: list[float] = []
        loop = VirtualLoop()
        with pytest.raises(ConnectionError):
            loop.run(decorated_async(calls, loop)())
        assert len(calls) == 3
        firsts.append(calls[1] - calls[0])
        flaky = Flaky(9)
        waits.clear()
        with pytest.raises(ConnectionError):
            with_retry()(named(flaky))()
        assert flaky.calls == 3
        firsts.append(waits[0])
    assert 0.9 < max(firsts) <= 1.0


def test_retry_decorators_wait_at_most_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    random.seed(12)
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    with pytest.raises(ConnectionError):
        with_retry(150)(named(Flaky(200)))()
    assert len(waits) == 149
    assert 9.5 < max(waits) <= 10.0
    calls: list[float] = []
    loop = VirtualLoop()
    with pytest.raises(ConnectionError):
        loop.run(decorated_async(calls, loop, max_attempts=150)())
    gaps = [after - before for before, after in itertools.pairwise(calls)]
    assert len(gaps) == 149
    assert 9.5 < max(gaps) <= 10.0 + 1e-9


def named(flaky: Flaky) -> Callable[[], int]:
    def fetch() -> int:
        return flaky()

    return fetch


def test_decorated_function_preserves_name_and_arguments() -> None:
    @with_retry(2, 0.0, 0.0, lambda error: isinstance(error, OSError))
    def join(first: str, *, second: str) -> str:
        """Joins."""
        seen.append(first)
        if len(seen) == 1:
            raise OSError
        if first == "bad":
            raise ValueError("bad")
        return first + second

    @with_async_retry(2, 0.0, 0.0, lambda error: isinstance(error, OSError))
    async def join_later(first: str, *, second: str) -> str:
        """Joins later."""
        return join(first, second=second)

    seen: list[str] = []
    with listening() as told:
        assert join("a", second="b") == "ab"
    assert told == [("retry", join.__qualname__, "OSError")]
    assert (join.__name__, join.__doc__) == ("join", "Joins.")
    assert (join_later.__name__, join_later.__doc__) == ("join_later", "Joins later.")
    assert VirtualLoop().run(join_later("c", second="d")) == "cd"
    assert seen == ["a", "a", "c"]
    with pytest.raises(ValueError, match="bad"):
        VirtualLoop().run(join_later("bad", second=""))
    assert seen == ["a", "a", "c", "bad"]


def test_decorated_coroutine_is_reported_by_name() -> None:
    calls: list[float] = []
    loop = VirtualLoop()
    fetch = decorated_async(calls, loop, max_attempts=4, base_delay=0.0, max_delay=0.0)
    with listening() as told, pytest.raises(ConnectionError):
        loop.run(fetch())
    assert len(calls) == 4
    assert loop.time() == 0.0
    assert {policy for _, policy, _ in told} == {"decorated_async.<locals>.fetch"}
    never = decorated_async(calls, loop, retryable=lambda error: False)
    with pytest.raises(ConnectionError):
        loop.run(never())
    assert len(calls) == 5
