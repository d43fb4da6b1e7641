"""The policies of one target, composed into a pipeline.

deadline → retry or hedge (budgeted) → limit → circuit breaker → attempt timeout → the call

A call that succeeds at once does not run any retry code. A timer is created only if the attempt has none of its own.
The configuration can be changed while calls are in progress.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from aurum.resilience import events
from aurum.resilience.budget import RetryBudget
from aurum.resilience.circuit_breaker import (
    STATE_CLOSED,
    STATE_HALF_OPEN,
    STATE_OPEN,
    BreakerConfig,
    CircuitBreakerError,
    ResilientCircuitBreaker,
)
from aurum.resilience.deadline import DeadlineExceededError, deadline
from aurum.resilience.error_groups import members
from aurum.resilience.errors import ErrorClassifier
from aurum.resilience.limit import ConcurrencyLimit, LimitExceededError
from aurum.resilience.limit_algorithms import LimitAlgorithm
from aurum.resilience.policy import HedgeSpec, Policy
from aurum.resilience.retry import RetryPolicy
from aurum.resilience.shadow import Shadow, Shadows
from aurum.resilience.status import OVERLOAD_OF_TARGET

T = TypeVar("T")
_SEVERITY = {STATE_CLOSED: 0, STATE_HALF_OPEN: 1, STATE_OPEN: 2}
Clock = Callable[[], float]
# Arguments: target, seconds, code, number of the attempt
Record = Callable[[str, float, str, int], None]


def attempt_seconds(policy: Policy) -> float:
    """Seconds that one attempt may take according to the policy."""
    return policy.timeout.attempt


@dataclass(frozen=True, slots=True)
class _Plan:
    """The values that a call needs from the policy in force."""

    policy: Policy
    deadline: float
    attempt: float
    breaker: ResilientCircuitBreaker | None
    limit: ConcurrencyLimit
    retry: RetryPolicy
    hedge: HedgeSpec | None
    adaptive: bool
    measured: bool  # whether the duration of successful calls is needed


@dataclass(frozen=True, slots=True)
class PipelineSnapshot:
    """What a pipeline knows about its target at one time.

    Attributes:
        breaker: A copy of the circuit breaker that no call uses.
        algorithm: A copy of the adaptive limit's algorithm, or None.
        tokens: Tokens in the retry budget.
    """

    breaker: ResilientCircuitBreaker
    algorithm: LimitAlgorithm | None
    tokens: float

    @property
    def severity(self) -> tuple[int, int]:
        """State and failures in the window as a sort key. The largest is nearest to refusing calls."""
        return _SEVERITY[self.breaker.current_state], self.breaker.fail_counter


class Pipeline:
    """Applies the policies to the calls to one target. It may be used from threads and event loops.

    Args:
        name: Name of the target, for events and metrics.
        policy: The policy to apply.
        errors: How to interpret the errors of the transport.
        seconds: Returns the timeout of one attempt for a policy. By default it is timeout.attempt.
        clock: Monotonic clock in seconds.
    """

    def __init__(
        self,
        name: str,
        policy: Policy,
        *,
        errors: ErrorClassifier | None = None,
        seconds: Callable[[Policy], float] = attempt_seconds,
        clock: Clock = time.monotonic,
    ) -> None:
        self.name = name
        self._errors = errors or ErrorClassifier()
        self._seconds = seconds
        self._clock = clock
        self.record: Record | None = None
        self.shadows: Shadows | None = None  # None while there are no shadows, which costs a call nothing
        self.budget = RetryBudget(name, policy.retry.budget_ratio, policy.retry.budget_floor, clock=clock)
        self._breaker = ResilientCircuitBreaker(
            name, is_failure=self._is_failure, clock=clock, config=_breaker_config(policy)
        )
        self._limit = ConcurrencyLimit(name, policy.limit(), clock)
        self._losing_attempts: set[asyncio.Future[Any]] = set()  # losing hedged attempts that still clean up
        self._plan = self._make_plan(policy)

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self._plan.policy

    @property
    def breaker(self) -> ResilientCircuitBreaker | None:
        """The circuit breaker, or None if the policy has none."""
        return self._plan.breaker

    @property
    def limit(self) -> ConcurrencyLimit:
        """The limit on the calls in progress."""
        return self._limit

    @property
    def retry(self) -> RetryPolicy:
        """The retry policy."""
        return self._plan.retry

    def configure(self, policy: Policy, name: str | None = None) -> None:
        """Puts another policy in force, and renames the pipeline if a name is given.

        Calls in progress end under the policy that they began with. Windows, states, tokens and queues are kept. A
        breaker that becomes disabled is closed and its window is cleared.
        """
        before = self._plan.policy
        renamed = name is not None and name != self.name
        if policy == before and not renamed:
            return
        if name is not None:
            self.name = self.budget.name = self._breaker.name = self._limit.name = name
        self.budget.configure(policy.retry.budget_ratio, policy.retry.budget_floor)
        if policy.circuit_breaker != before.circuit_breaker:
            self._breaker.configure(_breaker_config(policy))
            if before.circuit_breaker.enabled and not policy.circuit_breaker.enabled:
                self._breaker.close()
        if (policy.bulkhead, policy.adaptive_concurrency) != (before.bulkhead, before.adaptive_concurrency):
            self._limit.configure(policy.limit())
        self._plan = self._make_plan(policy)

    def snapshot(self) -> PipelineSnapshot:
        """Returns what the pipeline knows about its target now."""
        config = replace(self._breaker.config, forced=None)
        breaker = ResilientCircuitBreaker(self.name, config=config, clock=self._clock, emit=_ignore_event)
        breaker.inherit(self._breaker)
        return PipelineSnapshot(breaker, self._limit.copy_algorithm(), self.budget.tokens)

    def take_over(
        self, *, tokens: float, breaker: ResilientCircuitBreaker | None = None, algorithm: LimitAlgorithm | None = None
    ) -> None:
        """Takes over what other pipelines knew about the same calls. Arguments that are None change nothing."""
        self.budget.take_over(tokens)
        self._limit.take_over(algorithm)
        if breaker is not None and self._plan.breaker is not None:
            self._breaker.inherit(breaker)

    async def call_async(
        self,
        attempt: Callable[[float], Awaitable[T]],
        *,
        idempotent: bool = True,
        timed: bool = True,
        target: str | None = None,
    ) -> T:
        """Awaits `attempt(timeout_seconds)` under the policies. A call that is not idempotent is attempted once.

        Args:
            attempt: Makes one attempt within the given seconds.
            idempotent: Whether the call may be retried and hedged.
            timed: Whether a timer ends the attempt and calls within it inherit its deadline. False, which is faster, is
                for attempts that enforce and pass on the timeout themselves, as gRPC calls do.
            target: client/server/Method for records and shadows. By default it is the pipeline's name.

        Raises:
            CircuitBreakerError: The breaker is open.
            LimitExceededError: Too many calls are in progress.
            DeadlineExceededError: The deadline passed before an attempt was made, or a timed attempt took too long.
            Exception: The error of the last attempt.
        """
        plan = self._plan
        now = self._clock()
        at = now + plan.deadline
        outer = deadline.get()
        if outer is not None and outer < at:
            at = outer
        self.budget.deposit(now)
        if self.shadows is not None and (shadow := self.shadows.shadow_for(target or self.name)):
            attempt = self._observed(shadow, attempt)
        number = 1
        while True:
            try:
                if plan.hedge is None or not idempotent:
                    return await self._attempt(plan, attempt, at, now, number, timed, target)
                return await self._hedged(plan, plan.hedge, attempt, at, number, timed, target)
            except Exception as error:
                delay = plan.retry.next_delay(error, number, at - self._clock()) if idempotent else None
                if delay is None:
                    raise
            await asyncio.sleep(delay)
            now = self._clock()
            number += 1

    @contextlib.contextmanager
    def attempt(self, target: str | None = None) -> Generator[None]:
        """Applies limit and breaker to a block that makes one attempt by itself, such as a stream.

        The block is neither retried nor timed. Raises CircuitBreakerError or LimitExceededError.
        """
        plan = self._plan
        plan.limit.acquire(0.0)
        started = self._clock()
        permit: int | None = None
        try:
            permit = plan.breaker.acquire() if plan.breaker is not None else 0
            shadow = self.shadows.shadow_for(target or self.name) if self.shadows is not None else None
            with self._observed_by(shadow, min(plan.deadline, plan.attempt)) if shadow else contextlib.nullcontext():
                yield
        except BaseException as error:
            self._record_failure(plan, permit, error, started, 1, target)
            raise
        seconds = self._clock() - started
        try:
            if plan.breaker is not None:
                plan.breaker.succeeded(permit, seconds)
        finally:
            plan.limit.release(seconds if plan.adaptive else None)
        if self.record is not None:
            events.deliver(self.record, target or self.name, seconds, "OK", 1)

    def _observed(self, shadow: Shadow, attempt: Callable[[float], Awaitable[T]]) -> Callable[[float], Awaitable[T]]:
        async def watched(timeout: float) -> T:
            with self._observed_by(shadow, timeout):
                return await attempt(timeout)

        return watched

    @contextlib.contextmanager
    def _observed_by(self, shadow: Shadow, timeout: float) -> Generator[None]:
        """Shows a shadow the beginning and the outcome of an attempt."""
        watched = shadow.begin()
        try:
            yield
        except Exception as error:
            watched.end(self._code(error))
            raise
        except BaseException:
            watched.end("DEADLINE_EXCEEDED" if self._clock() - watched.began >= timeout else None)
            raise
        watched.end("OK")

    async def _attempt(  # noqa: PLR0917 - positional is faster, and this is the way of every call
        self,
        plan: _Plan,
        attempt: Callable[[float], Awaitable[T]],
        at: float,
        started: float,
        number: int,
        timed: bool,
        target: str | None,
    ) -> T:
        # This repeats `attempt` without a context manager, because every call passes here
        limit = plan.limit
        if not limit.try_acquire():
            try:
                await limit.acquire_async(max(0.0, at - self._clock()))
            except LimitExceededError as error:
                self._record_refusal(error, number, target)
                raise
            started = self._clock()
        breaker = plan.breaker
        permit: int | None = None
        try:
            left = at - started
            timeout = left if left < plan.attempt else plan.attempt
            if timeout <= 0:
                raise DeadlineExceededError(f"{self.name}: the deadline passed before the call was made")
            permit = breaker.acquire() if breaker is not None else 0
            if timed:
                token = deadline.set(at if left < plan.attempt else started + timeout)
                try:
                    async with asyncio.timeout(timeout):
                        result = await attempt(timeout)
                except DeadlineExceededError:
                    raise
                except TimeoutError as error:
                    raise DeadlineExceededError(f"{self.name}: no answer within {timeout:.3f} s") from error
                finally:
                    deadline.reset(token)
            else:
                result = await attempt(timeout)
        except BaseException as error:
            self._record_failure(plan, permit, error, started, number, target)
            raise
        seconds = self._clock() - started if plan.measured or self.record is not None else 0.0
        try:
            if breaker is not None:
                breaker.succeeded(permit, seconds)
        finally:
            limit.release(seconds if plan.adaptive else None)
        if self.record is not None:
            events.deliver(self.record, target or self.name, seconds, "OK", number)
        return result

    def _record_failure(  # noqa: PLR0917
        self,
        plan: _Plan,
        permit: int | None,
        error: BaseException,
        started: float,
        number: int,
        target: str | None,
    ) -> None:
        seconds = self._clock() - started
        reached = permit is not None and not isinstance(error, CircuitBreakerError) and isinstance(error, Exception)
        code = ""
        try:
            code = self._code(error)
            if plan.breaker is not None and permit is not None:
                plan.breaker.failed(permit, error, seconds)
        finally:
            plan.limit.release(seconds if reached and plan.adaptive else None, code in OVERLOAD_OF_TARGET)
        if self.record is not None and isinstance(error, Exception):
            events.deliver(self.record, target or self.name, seconds, code, number)

    def _record_refusal(self, error: LimitExceededError, number: int, target: str | None) -> None:
        if self.record is not None:
            events.deliver(self.record, target or self.name, 0.0, self._code(error), number)

    def _code(self, error: BaseException) -> str:
        """The status code of an error. For a group, it is the code that all members share, or UNKNOWN."""
        if not isinstance(error, BaseExceptionGroup):
            return self._errors.code(error)
        codes = {self._errors.code(each) for each in members(error)}
        return codes.pop() if len(codes) == 1 else "UNKNOWN"

    async def _hedged(  # noqa: PLR0917
        self,
        plan: _Plan,
        hedge: HedgeSpec,
        attempt: Callable[[float], Awaitable[T]],
        at: float,
        number: int,
        timed: bool,
        target: str | None,
    ) -> T:
        """Starts another attempt whenever the last one has taken longer than the delay, and returns the first answer.

        An error is raised only when no attempt is left. An attempt that ends as cancelled counts as failed if the call
        itself was not cancelled. The remaining attempts are cancelled after an answer, without waiting for their
        clean-up.
        """
        first = asyncio.ensure_future(self._attempt(plan, attempt, at, self._clock(), number, timed, target))
        attempts: set[asyncio.Future[T]] = {first}
        failed: asyncio.Future[T] | None = None
        started = 1
        try:
            while True:
                more = started < hedge.max_attempts
                done, attempts = await asyncio.wait(
                    attempts, timeout=hedge.delay if more else None, return_when=asyncio.FIRST_COMPLETED
                )
                answers = [each for each in done if not each.cancelled() and each.exception() is None]
                if answers:
                    self._cancel_losers(attempts)
                    return answers[0].result()
                for each in done:
                    if failed is None or not each.cancelled():  # an error is more informative than a cancellation
                        failed = each
                if failed is not None and not attempts:
                    return failed.result()
                if not done:
                    started += 1
                    if self.budget.withdraw():
                        events.emit("hedge", self.name, str(started))
                        again = self._attempt(plan, attempt, at, self._clock(), number + started - 1, timed, target)
                        attempts.add(asyncio.ensure_future(again))
        except asyncio.CancelledError:
            self._cancel_losers(attempts)
            await asyncio.gather(*attempts, return_exceptions=True)
            raise

    def _cancel_losers(self, attempts: set[asyncio.Future[T]]) -> None:
        """Cancels attempts whose results are not needed. Each occupies its place until it has cleaned up."""
        for each in attempts:
            self._losing_attempts.add(each)
            each.add_done_callback(self._forget)
            each.cancel()

    def _forget(self, attempt: asyncio.Future[Any]) -> None:
        self._losing_attempts.discard(attempt)
        if not attempt.cancelled():
            attempt.exception()  # marks the exception as retrieved

    def _make_plan(self, policy: Policy) -> _Plan:
        codes = frozenset(policy.retry.retry_on)
        self._failure_codes = frozenset(policy.circuit_breaker.failure_codes)
        return _Plan(
            policy=policy,
            deadline=policy.timeout.deadline,
            attempt=self._seconds(policy),
            breaker=self._breaker if policy.circuit_breaker.enabled else None,
            limit=self._limit,
            retry=RetryPolicy(
                policy.retry.max_attempts,
                policy.retry.base_delay,
                policy.retry.max_delay,
                self.name,
                lambda error: self._errors.code(error) in codes,
                self._errors.retry_after,
                self.budget,
            ),
            hedge=policy.hedge,
            adaptive=policy.adaptive_concurrency is not None,
            measured=policy.adaptive_concurrency is not None or policy.circuit_breaker.slow_call is not None,
        )

    def _is_failure(self, error: BaseException) -> bool:
        return self._errors.code(error) in self._failure_codes


def _breaker_config(policy: Policy) -> BreakerConfig:
    """Returns the breaker's configuration. The forced state of a disabled breaker is removed, since no call asks it."""
    config = policy.circuit_breaker.config()
    return config if policy.circuit_breaker.enabled else replace(config, forced=None)


def _ignore_event(kind: events.EventKind, policy: str, value: str = "") -> None:
    """Discards the events of a copied breaker."""
