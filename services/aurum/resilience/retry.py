"""Retries with exponential backoff and full jitter, or with tenacity's strategies, within a budget and a deadline."""

import asyncio
import functools
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from aurum.resilience import events, tenacity_interface
from aurum.resilience.budget import RetryBudget
from aurum.resilience.circuit_breaker import CircuitBreakerError
from aurum.resilience.deadline import remaining
from aurum.resilience.error_groups import members
from aurum.resilience.tenacity_interface import RetryIf, Stop, Wait
from aurum.resilience.unfinished import UNFINISHED, UnfinishedCallError, unfinished

P = ParamSpec("P")
T = TypeVar("T")
_MOST_DOUBLINGS = 64  # further doublings change nothing, and would overflow at some point


def any_error(error: BaseException) -> bool:
    """Whether a retry may help: true except for refusals by a breaker and for exceptions such as cancellation."""
    return isinstance(error, Exception) and not isinstance(error, CircuitBreakerError)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and when to retry.

    The n-th wait is drawn uniformly from 0 to min(max_delay, base_delay * 2**(n - 1)). A group of errors is retryable
    if all of its members are. It waits as long as the longest member asks.

    `wait`, `stop` and `retry` are tenacity strategies for `call` and `call_async`. `wait` replaces base_delay and
    max_delay, and `stop` replaces max_attempts. With `retry`, an error must be retryable and be chosen by it, and
    results may be retried too. retry_after, the deadline and the budget apply in any case.

    Attributes:
        max_attempts: Attempts in all, 3 by default.
        base_delay: Bound of the first wait in seconds, 1.0 by default.
        max_delay: Bound of all waits in seconds, 10.0 by default.
        name: Name for events and errors.
        retryable: Decides which errors are retried.
        retry_after: Returns the seconds that an error asks to wait, or None.
        budget: Retry budget that is shared with other calls, or None.
    """

    max_attempts: int = 3
    base_delay: float = 1.0
    max_delay: float = 10.0
    name: str = "default"
    retryable: Callable[[BaseException], bool] = any_error
    retry_after: Callable[[BaseException], float | None] = lambda error: None
    budget: RetryBudget | None = None
    wait: Wait | None = None
    stop: Stop | None = None
    retry: RetryIf | None = None

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError(f"retry {self.name}: max_attempts must be at least 1, not {self.max_attempts}")
        if not 0 <= self.base_delay <= self.max_delay:
            raise ValueError(f"retry {self.name}: base_delay must be between 0 and max_delay ({self.max_delay} s)")

    def call(self, func: Callable[[], T]) -> T:
        """Calls `func` until it succeeds. Raises its last error when there are no more retries.

        Raises TypeError if `func` returns a coroutine or a generator, whose outcome is not known yet.
        """
        self._deposit_tokens()
        if self._uses_tenacity:
            return tenacity_interface.run(self, lambda: self._require_finished(func()))
        attempt = 1
        while True:
            try:
                result = func()
            except Exception as error:
                delay = self.next_delay(error, attempt, remaining())
                if delay is None:
                    raise
            else:
                return self._require_finished(result)
            time.sleep(delay)
            attempt += 1

    async def call_async(self, func: Callable[[], Awaitable[T]]) -> T:
        """Awaits `func` until it succeeds. Raises its last error when there are no more retries."""
        self._deposit_tokens()
        if self._uses_tenacity:
            return await tenacity_interface.run_async(self, func)
        attempt = 1
        while True:
            try:
                return await func()
            except Exception as error:
                delay = self.next_delay(error, attempt, remaining())
                if delay is None:
                    raise
            await asyncio.sleep(delay)
            attempt += 1

    def next_delay(self, error: BaseException, attempt: int, left: float | None) -> float | None:
        """Returns the seconds to wait before the next attempt, or None if there is none.

        A next attempt is withdrawn from the budget.

        Args:
            error: The error of the last attempt.
            attempt: Number of the last attempt, counted from 1.
            left: Seconds until the deadline, or None without one. There is no next attempt if the deadline would pass
                during the wait.
        """
        if not all(map(self.retryable, members(error))):
            return None
        delay = self.delay(error, attempt)
        return delay if self._may_retry(delay, type(error).__name__, attempt >= self.max_attempts, left) else None

    def delay(self, error: BaseException, attempt: int) -> float:
        """Seconds to wait after attempt number `attempt`: the backoff, or longer if the error asks for it."""
        bound = min(self.max_delay, self.base_delay * 2.0 ** min(attempt - 1, _MOST_DOUBLINGS))
        return max(random.uniform(0.0, bound), self.requested_delay(error))  # noqa: S311 - no secret

    def requested_delay(self, error: BaseException) -> float:
        """Seconds that an error asks to wait. For a group it is the longest wait, and 0.0 if no error asks."""
        return max(self.retry_after(each) or 0.0 for each in members(error))

    def is_retryable(self, error: BaseException) -> bool:
        """Whether an error is worth another attempt. Cancellation and other BaseExceptions never are."""
        if not isinstance(error, Exception) or isinstance(error, UnfinishedCallError):
            return False
        return all(map(self.retryable, members(error)))

    def may_retry(self, delay: float, why: str, last: bool) -> bool:
        """Whether another attempt may be made after `delay` seconds. If so, it is withdrawn from the budget.

        Args:
            delay: Seconds to wait before the attempt.
            why: Outcome of the last attempt, for events.
            last: Whether no more attempts are allowed.
        """
        return self._may_retry(delay, why, last, remaining())

    def _may_retry(self, delay: float, why: str, last: bool, left: float | None) -> bool:
        if last or (left is not None and left <= delay):
            events.emit("retry_exhausted", self.name, why)
            return False
        if self.budget and not self.budget.withdraw():
            return False
        events.emit("retry", self.name, why)
        return True

    @property
    def _uses_tenacity(self) -> bool:
        return self.wait is not None or self.stop is not None or self.retry is not None

    def _require_finished(self, result: T) -> T:
        """Returns the result. Raises UnfinishedCallError for a coroutine or a generator, whose body has not run yet."""
        if result.__class__ in UNFINISHED:
            raise unfinished(
                f"retry {self.name}", result, "call_async or with_async_retry", "a function that iterates it"
            )
        return result

    def _deposit_tokens(self) -> None:
        if self.budget:
            self.budget.deposit()


def with_retry(
    max_attempts: int = 3,
    base_delay: float = 1.0,
    max_delay: float = 10.0,
    retryable: Callable[[BaseException], bool] = any_error,
    *,
    wait: Wait | None = None,
    stop: Stop | None = None,
    retry: RetryIf | None = None,
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorates a function with its own RetryPolicy. `wait`, `stop` and `retry` are tenacity strategies."""

    def decorate(func: Callable[P, T]) -> Callable[P, T]:
        policy = RetryPolicy(
            max_attempts, base_delay, max_delay, func.__qualname__, retryable, wait=wait, stop=stop, retry=retry
        )

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
    *,
    wait: Wait | None = None,
    stop: Stop | None = None,
    retry: RetryIf | None = None,
) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T]]]:
    """Decorates a coroutine function with its own RetryPolicy. The arguments are those of `with_retry`."""

    def decorate(func: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        policy = RetryPolicy(
            max_attempts, base_delay, max_delay, func.__qualname__, retryable, wait=wait, stop=stop, retry=retry
        )

        @functools.wraps(func)
        async def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
            return await policy.call_async(lambda: func(*args, **kwargs))

        return wrapper

    return decorate
