"""Retries with exponential backoff and full jitter, by tenacity's waits, within a budget and a deadline."""

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import tenacity

from aurum.resilience import events
from aurum.resilience.budget import RetryBudget
from aurum.resilience.circuit_breaker import CircuitBreakerError
from aurum.resilience.deadline import remaining
from aurum.resilience.error_groups import members
from aurum.resilience.unfinished import UNFINISHED, unfinished

P = ParamSpec("P")
T = TypeVar("T")
_NO_RETRYING = tenacity.Retrying()  # a state has to name one; its waits never look at it


def any_error(error: BaseException) -> bool:
    """True but for what a retry cannot help: a breaker that refuses the call, or an end that was asked for."""
    return isinstance(error, Exception) and not isinstance(error, CircuitBreakerError)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and when to try again.

    max_attempts: calls in all, 3 by default. base_delay and max_delay: bounds of the backoff in seconds, 1.0 and 10.0
    by default; the n-th wait is drawn evenly from 0 to min(max_delay, base_delay * 2**(n - 1)). retryable: which errors
    are worth it. retry_after: seconds that an error asks to wait, or None. budget: shared with other calls, or None.
    A group of errors is worth it if each of them is, and waits as long as the longest of them asks.
    """

    max_attempts: int = 3
    base_delay: float = 1.0
    max_delay: float = 10.0
    name: str = "default"
    retryable: Callable[[BaseException], bool] = any_error
    retry_after: Callable[[BaseException], float | None] = lambda error: None
    budget: RetryBudget | None = None

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError(f"retry {self.name}: max_attempts must be at least 1, not {self.max_attempts}")
        if not 0 <= self.base_delay <= self.max_delay:
            raise ValueError(f"retry {self.name}: base_delay must be between 0 and max_delay ({self.max_delay} s)")

    def call(self, func: Callable[[], T]) -> T:
        """Calls `func` until it succeeds; raises its last error, and TypeError where it returns a coroutine or a
        generator, of which nobody knows yet how it ends."""
        self._deposit()
        attempt = 1
        while True:
            try:
                result = func()
            except Exception as error:
                delay = self.again(error, attempt, remaining())
                if delay is None:
                    raise
            else:
                if result.__class__ in UNFINISHED:
                    raise unfinished(
                        f"retry {self.name}", result, "call_async or with_async_retry", "a function that iterates it"
                    )
                return result
            time.sleep(delay)
            attempt += 1

    async def call_async(self, func: Callable[[], Awaitable[T]]) -> T:
        """Awaits `func` until it succeeds; raises its last error."""
        self._deposit()
        attempt = 1
        while True:
            try:
                return await func()
            except Exception as error:
                delay = self.again(error, attempt, remaining())
                if delay is None:
                    raise
            await asyncio.sleep(delay)
            attempt += 1

    def again(self, error: BaseException, attempt: int, left: float | None) -> float | None:
        """Seconds to wait for the next attempt after number `attempt` failed, or None if there is to be none. The next
        one is then taken from the budget. left: seconds until the deadline; there is none if it would pass during the
        wait."""
        if not all(map(self.retryable, members(error))):
            return None
        delay = self.delay(error, attempt)
        if attempt >= self.max_attempts or (left is not None and left <= delay):
            events.emit("retry_exhausted", self.name, type(error).__name__)
            return None
        if self.budget and not self.budget.withdraw():
            return None
        events.emit("retry", self.name, type(error).__name__)
        return delay

    def delay(self, error: BaseException, attempt: int) -> float:
        """Seconds to wait after attempt number `attempt`: tenacity's backoff, or longer if the error asks for that."""
        state = tenacity.RetryCallState(retry_object=_NO_RETRYING, fn=None, args=(), kwargs={})
        state.attempt_number = attempt
        backoff = tenacity.wait_random_exponential(multiplier=self.base_delay, max=self.max_delay)
        return max(backoff(state), *(self.retry_after(each) or 0.0 for each in members(error)))

    def _deposit(self) -> None:
        if self.budget:
            self.budget.deposit()


def with_retry(
    max_attempts: int = 3,
    base_delay: float = 1.0,
    max_delay: float = 10.0,
    retryable: Callable[[BaseException], bool] = any_error,
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorates a function with a RetryPolicy of its own."""

    def decorate(func: Callable[P, T]) -> Callable[P, T]:
        policy = RetryPolicy(max_attempts, base_delay, max_delay, func.__qualname__, retryable)

        @functools.wraps(func)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
            return policy.call(lambda: func(*args, **kwargs))

        return wrapper

    return decorate


def with_async_retry(
    max_attempts: int = 3,
    base_delay: float = 1.0,
    max_delay: float = 10.0,
    retryable: Callable[[BaseException], bool] = any_error,
) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T]]]:
    """Decorates a coroutine function with a RetryPolicy of its own."""

    def decorate(func: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        policy = RetryPolicy(max_attempts, base_delay, max_delay, func.__qualname__, retryable)

        @functools.wraps(func)
        async def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
            return await policy.call_async(lambda: func(*args, **kwargs))

        return wrapper

    return decorate
