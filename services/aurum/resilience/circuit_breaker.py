"""A circuit breaker with pybreaker's states and error, async as well as sync, that holds no lock across a call.

Closed: calls pass, `fail_max` failures in a row open it. Open: calls are refused for `timeout_duration` seconds.
Half-open: at most `probes` calls pass at a time; as many successes close it, one failure opens it again.
"""

import threading
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from pybreaker import STATE_CLOSED, STATE_HALF_OPEN, STATE_OPEN, CircuitBreakerError

from aurum.resilience import events

__all__ = ["STATE_CLOSED", "STATE_HALF_OPEN", "STATE_OPEN", "CircuitBreakerError", "ResilientCircuitBreaker"]

P = ParamSpec("P")
T = TypeVar("T")


class ResilientCircuitBreaker:
    """Refuses calls to a dependency that keeps failing, and lets a few through later to see whether it is back.

    name: for events, metrics and errors. fail_max: failures in a row that open it, 5 by default. timeout_duration:
    seconds that it stays open, 60.0 by default. probes: calls let through at a time when half-open, 1 by default.
    is_failure: which exceptions count; all but CircuitBreakerError by default. A call that is cancelled counts neither
    way. Calls that it refuses raise pybreaker's CircuitBreakerError.
    """

    def __init__(  # noqa: PLR0917 - the first three are positional in the calls of earlier code
        self,
        name: str = "default",
        fail_max: int = 5,
        timeout_duration: float = 60.0,
        probes: int = 1,
        is_failure: Callable[[BaseException], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if fail_max < 1 or probes < 1 or timeout_duration < 0:
            raise ValueError(
                f"circuit breaker {name}: fail_max and probes must be at least 1, timeout_duration at least 0"
            )
        self.name = name
        self.fail_max = fail_max
        self.timeout_duration = timeout_duration
        self.probes = probes
        self._is_failure = is_failure or (lambda error: True)
        self._clock = clock
        self._lock = threading.Lock()
        self._state: str = STATE_CLOSED
        self._failures = 0
        self._opened_at = 0.0
        self._probing = 0
        self._probe_successes = 0
        self._epoch = 0  # grows with each change of state, so that an outcome counts only for the state it began in

    @property
    def current_state(self) -> str:
        """STATE_CLOSED, STATE_OPEN or STATE_HALF_OPEN."""
        return self._state

    @property
    def fail_counter(self) -> int:
        """Failures in a row."""
        return self._failures

    def call(self, func: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls `func`; raises CircuitBreakerError without calling it when the breaker is open."""
        with self.guard():
            return func(*args, **kwargs)

    async def call_async(self, func: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Awaits `func`; raises CircuitBreakerError without calling it when the breaker is open."""
        with self.guard():
            return await func(*args, **kwargs)

    @contextmanager
    def guard(self) -> Generator[None]:
        """Lets the block run if the state allows it and learns from how it ends."""
        epoch = self._admit()
        try:
            yield
        except Exception as error:
            if isinstance(error, CircuitBreakerError):
                self._release(epoch)
            elif self._is_failure(error):
                self._failed(epoch, error)
            else:
                self._succeeded(epoch)
            raise
        except BaseException:
            self._release(epoch)
            raise
        self._succeeded(epoch)

    def _admit(self) -> int:
        refused: str | None = None
        moved: str | None = None
        with self._lock:
            if self._state == STATE_OPEN and self._clock() - self._opened_at >= self.timeout_duration:
                self._move(STATE_HALF_OPEN)
                moved = STATE_HALF_OPEN
            if self._state == STATE_OPEN:
                refused = STATE_OPEN
            elif self._state == STATE_HALF_OPEN:
                if self._probing >= self.probes:
                    refused = STATE_HALF_OPEN
                else:
                    self._probing += 1
            epoch = self._epoch
        if moved:
            events.emit("breaker_state", self.name, moved)
        if refused:
            events.emit("breaker_rejection", self.name, refused)
            raise CircuitBreakerError(f"circuit breaker {self.name} is {refused}; the call was not made")
        return epoch

    def _succeeded(self, epoch: int) -> None:
        moved = False
        with self._lock:
            if epoch != self._epoch:
                return
            if self._state == STATE_HALF_OPEN:
                self._probing -= 1
                self._probe_successes += 1
                if self._probe_successes >= self.probes:
                    self._move(STATE_CLOSED)
                    moved = True
            self._failures = 0
        if moved:
            events.emit("breaker_state", self.name, STATE_CLOSED)

    def _failed(self, epoch: int, error: BaseException) -> None:
        moved = False
        with self._lock:
            if epoch == self._epoch:
                self._failures += 1
                if self._state == STATE_HALF_OPEN or self._failures >= self.fail_max:
                    self._move(STATE_OPEN)
                    self._opened_at = self._clock()
                    moved = True
        events.emit("breaker_failure", self.name, type(error).__name__)
        if moved:
            events.emit("breaker_state", self.name, STATE_OPEN)

    def _release(self, epoch: int) -> None:
        with self._lock:
            if epoch == self._epoch and self._state == STATE_HALF_OPEN:
                self._probing -= 1

    def _move(self, state: str) -> None:
        self._state = state
        self._epoch += 1
        self._probing = 0
        self._probe_successes = 0
