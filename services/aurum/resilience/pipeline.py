"""The policies of one target, composed: deadline → retry (budgeted) → circuit breaker → attempt timeout → the call."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aurum.resilience.budget import RetryBudget
from aurum.resilience.circuit_breaker import ResilientCircuitBreaker
from aurum.resilience.deadline import DeadlineExceededError, deadline_scope, remaining
from aurum.resilience.policy import Policy
from aurum.resilience.retry import RetryPolicy

T = TypeVar("T")


class Pipeline:
    """Governs the calls to one target.

    name: of the target, for events and metrics. is_failure: which errors count against the dependency's health.
    is_retryable: which errors are worth another attempt. retry_after: seconds that an error asks to wait.
    """

    def __init__(
        self,
        name: str,
        policy: Policy,
        *,
        is_failure: Callable[[BaseException], bool],
        is_retryable: Callable[[BaseException], bool],
        retry_after: Callable[[BaseException], float | None] = lambda error: None,
    ) -> None:
        self.name = name
        self.policy = policy
        breaker = policy.circuit_breaker
        self.breaker = (
            ResilientCircuitBreaker(
                name, breaker.fail_max, breaker.open_seconds, breaker.half_open_probes, is_failure=is_failure
            )
            if breaker.enabled
            else None
        )
        self.budget = RetryBudget(name, policy.retry.budget_ratio, policy.retry.budget_floor_per_second)
        self.retry = RetryPolicy(
            policy.retry.max_attempts,
            policy.retry.base_delay_seconds,
            policy.retry.max_delay_seconds,
            name,
            is_retryable,
            retry_after,
            self.budget,
        )

    async def call(self, attempt: Callable[[float], Awaitable[T]], *, idempotent: bool = True) -> T:
        """Awaits `attempt(timeout_seconds)` under the policies; a call that is not idempotent is made once.

        Raises the last attempt's error, CircuitBreakerError when the breaker is open, or DeadlineExceededError.
        """
        with deadline_scope(self.policy.timeout.deadline_seconds):
            if not idempotent:
                return await self._attempt(attempt)
            return await self.retry.call_async(lambda: self._attempt(attempt))

    async def _attempt(self, attempt: Callable[[float], Awaitable[T]]) -> T:
        left = remaining()
        timeout = (
            self.policy.timeout.attempt_seconds if left is None else min(left, self.policy.timeout.attempt_seconds)
        )
        if timeout <= 0:
            raise DeadlineExceededError(f"{self.name}: the deadline passed before the call was made")
        if self.breaker is None:
            return await self._timed(attempt, timeout)
        with self.breaker.guard():
            return await self._timed(attempt, timeout)

    async def _timed(self, attempt: Callable[[float], Awaitable[T]], timeout: float) -> T:
        # The attempt enforces its timeout itself (a gRPC deadline travels to the server); this one, a little later,
        # is for an attempt that does not.
        try:
            async with asyncio.timeout(timeout + 0.25):
                return await attempt(timeout)
        except TimeoutError as error:
            if isinstance(error, DeadlineExceededError):
                raise
            raise DeadlineExceededError(f"{self.name}: no answer within {timeout:.3f} s") from error
