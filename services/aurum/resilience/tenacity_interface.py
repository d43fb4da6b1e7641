"""Runs calls with tenacity's strategies (`wait_*`, `stop_*`, `retry_if_*`) within a deadline and a budget.

tenacity's `Retrying` and `AsyncRetrying` drive the attempts. The deadline and the budget are additional reasons to
stop. So strategies see the same attempts, outcomes and times as in a program that uses tenacity alone.
"""

import inspect
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar, cast

import tenacity
from tenacity import RetryCallState
from tenacity.asyncio.retry import RetryBaseT as AsyncRetryBaseT
from tenacity.retry import RetryBaseT
from tenacity.stop import StopBaseT
from tenacity.wait import WaitBaseT

T = TypeVar("T")
Wait = WaitBaseT
Stop = StopBaseT
RetryIf = RetryBaseT | AsyncRetryBaseT


class RetryRules(Protocol):
    """The part of a retry policy that these functions use."""

    @property
    def wait(self) -> Wait | None:
        """The tenacity strategy for the waits between attempts, or None."""

    @property
    def stop(self) -> Stop | None:
        """The tenacity strategy that ends the attempts, or None."""

    @property
    def retry(self) -> RetryIf | None:
        """The tenacity strategy that selects the outcomes to retry, or None."""

    @property
    def max_attempts(self) -> int:
        """The most attempts of a call, including the first."""

    def is_retryable(self, error: BaseException) -> bool:
        """Whether an error is worth another attempt. `retry` may still decide against it."""

    def delay(self, error: BaseException, attempt: int) -> float:
        """Seconds to wait after an attempt if there is no `wait` strategy."""

    def requested_delay(self, error: BaseException) -> float:
        """Seconds that an error asks to wait."""

    def may_retry(self, delay: float, why: str, last: bool) -> bool:
        """Whether another attempt may be made after `delay` seconds.

        Args:
            delay: Seconds to wait before the attempt.
            why: Outcome of the last attempt, for events.
            last: Whether no more attempts are allowed.
        """


def run(rules: RetryRules, func: Callable[[], T]) -> T:
    """Calls `func` until it succeeds.

    Raises its last error, or tenacity.RetryError if the strategies would still retry its last result.
    """
    strategies = _Strategies(rules)
    retrying = tenacity.Retrying(
        retry=strategies.should_retry, wait=strategies.next_wait, stop=strategies.is_over, reraise=True
    )
    return retrying(func)


async def run_async(rules: RetryRules, func: Callable[[], Awaitable[T]]) -> T:
    """Awaits `func` until it succeeds. Raises the same errors as `run`. Strategies may be coroutine functions."""
    strategies = _Strategies(rules)

    async def attempt() -> T:
        return await func()  # tenacity recognises coroutine functions only

    retrying = tenacity.AsyncRetrying(
        retry=strategies.should_retry_async, wait=strategies.next_wait, stop=strategies.is_over, reraise=True
    )
    return cast(T, await retrying(attempt))


class _Strategies:
    """The strategies of one call. tenacity calls `should_retry`, `next_wait` and `is_over` in this order."""

    def __init__(self, rules: RetryRules) -> None:
        self._rules = rules

    def should_retry(self, state: RetryCallState) -> bool:
        verdict = self._evaluate(state)
        if inspect.isawaitable(verdict):
            raise TypeError("retry: a strategy that has to be awaited is for call_async and with_async_retry")
        return verdict

    async def should_retry_async(self, state: RetryCallState) -> bool:
        verdict = self._evaluate(state)
        return await verdict if inspect.isawaitable(verdict) else verdict

    def next_wait(self, state: RetryCallState) -> float:
        error, rules = _error_of(state), self._rules
        if rules.wait is None:
            return rules.delay(error or tenacity.TryAgain(), state.attempt_number)
        return max(float(rules.wait(state)), rules.requested_delay(error) if error is not None else 0.0)

    def is_over(self, state: RetryCallState) -> bool:
        error, rules = _error_of(state), self._rules
        last = rules.stop(state) if rules.stop is not None else state.attempt_number >= rules.max_attempts
        why = type(error).__name__ if error is not None else "result"
        return not rules.may_retry(state.upcoming_sleep, why, last)

    def _evaluate(self, state: RetryCallState) -> bool | Awaitable[bool]:
        error, retry = _error_of(state), self._rules.retry
        if error is not None and not self._rules.is_retryable(error):
            return False
        return error is not None if retry is None else retry(state)


def _error_of(state: RetryCallState) -> BaseException | None:
    """Returns the error of the attempt, or None if it has a result."""
    return state.outcome.exception() if state.outcome is not None else None
