"""A circuit breaker with pybreaker's states, listeners and error, async as well as sync; no lock is held across a call.

Closed: calls pass, until too many in a window fail or are slow. Open: calls are refused for a while. Half-open: exactly
`probes` calls pass; if all of them succeed it closes, one failure opens it again, for longer.
"""

import math
import random as _random
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, ParamSpec, TypeVar

from pybreaker import (
    STATE_CLOSED,
    STATE_HALF_OPEN,
    STATE_OPEN,
    CircuitBreakerError,
    CircuitBreakerListener,
    CircuitBreakerState,
)

from aurum.resilience import events
from aurum.resilience.pybreaker_interface import Exclusion, PybreakerInterface
from aurum.resilience.windows import Counts, CountWindow, InARow, TimeWindow, Window

__all__ = [
    "STATE_CLOSED",
    "STATE_HALF_OPEN",
    "STATE_OPEN",
    "BreakerConfig",
    "CircuitBreakerError",
    "CircuitBreakerListener",
    "CircuitOpenError",
    "ResilientCircuitBreaker",
]

P = ParamSpec("P")
T = TypeVar("T")


class CircuitOpenError(CircuitBreakerError):
    """The breaker refused the call. Made of a message and of seconds; without a constructor of its own it is made in a
    third of the time."""

    @property
    def retry_after(self) -> float:
        """Seconds after which the breaker may let a call through."""
        return float(self.args[1])

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True)
class BreakerConfig:
    """When a breaker opens and for how long.

    mode: consecutive (fail_max failures in a row), count (of the last window_calls calls) or time (of the calls of the
    last window_seconds seconds); the latter two open at a share of failure_rate or, of calls that took slow_seconds or
    longer, of slow_rate, from minimum_calls calls on. In a row, a slow call counts as a failure.
    open_seconds: how long it stays open; each time that a probe fails open_growth times longer, up to
    max_open_seconds, give or take a share of open_jitter drawn at random. probes: calls that pass when half-open.
    forced: open refuses every call, closed lets every call through, whatever the window says.
    """

    mode: Literal["consecutive", "count", "time"] = "consecutive"
    fail_max: int = 5
    window_calls: int = 100
    window_seconds: float = 10.0
    failure_rate: float = 0.5
    slow_seconds: float | None = None
    slow_rate: float = 1.0
    minimum_calls: int = 20
    open_seconds: float = 60.0
    open_jitter: float = 0.0
    open_growth: float = 1.0
    max_open_seconds: float = 3600.0
    probes: int = 1
    forced: Literal["open", "closed"] | None = None


class ResilientCircuitBreaker(PybreakerInterface):
    """Refuses calls to a dependency that keeps failing, and lets a few through later to see whether it is back.

    name: for events, metrics and errors. fail_max: failures in a row that open it, 5 by default. timeout_duration:
    seconds that it stays open, 60.0 by default. probes: calls let through when half-open, 1 by default. config: instead
    of these three, all there is to say. is_failure: which exceptions count; all but CircuitBreakerError by default. A
    call that is cancelled counts neither way. Calls that it refuses raise CircuitOpenError, a pybreaker
    CircuitBreakerError. listeners: pybreaker's, called on the thread of the call. exclude: exceptions that are no
    failures, whatever is_failure says: types, or functions of an exception. emit: takes its events; all who have
    subscribed by default.
    """

    def __init__(  # noqa: PLR0917 - the first three are positional in the calls of earlier code
        self,
        name: str = "default",
        fail_max: int = 5,
        timeout_duration: float = 60.0,
        probes: int = 1,
        is_failure: Callable[[BaseException], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        config: BreakerConfig | None = None,
        listeners: Sequence[CircuitBreakerListener] = (),
        exclude: Iterable[Exclusion] = (),
        random: Callable[[], float] = _random.random,
        emit: events.Emit = events.emit,
    ) -> None:
        self.name = name
        self.config = config or BreakerConfig(fail_max=fail_max, open_seconds=timeout_duration, probes=probes)
        _check(name, self.config)
        self.listeners = tuple(listeners)
        self.excluded_exceptions = tuple(exclude)
        self._is_failure = is_failure or (lambda error: True)
        self._clock = clock
        self._random = random
        self._emit = emit
        self._lock = threading.Lock()
        self._state: str = STATE_CLOSED
        self._window: Window = _window(self.config)
        self._changed_at = clock()
        self._open_for = 0.0
        self._reopened = 0  # times that probes failed since it was last closed
        self._probing = 0  # probes let through and not given back
        self._probe_successes = 0
        self._epoch = 0  # grows with each change of state, so that an outcome counts only for the state it began in
        self._settle()

    @property
    def name(self) -> str:
        """For events, metrics and errors."""
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        self._name = name
        self._open_message = f"circuit breaker {name} is open; the call was not made"

    @property
    def current_state(self) -> str:
        """STATE_CLOSED, STATE_OPEN or STATE_HALF_OPEN; what it is forced to, if it is."""
        if self.config.forced:
            return STATE_OPEN if self.config.forced == "open" else STATE_CLOSED
        return self._state

    @property
    def fail_counter(self) -> int:
        """Failures in the window: in a row, of the last calls or of the last seconds."""
        return self.counts.failures

    @property
    def counts(self) -> Counts:
        """What the window holds."""
        with self._lock:
            return self._window.counts(self._clock())

    def configure(self, config: BreakerConfig) -> None:
        """Changes the rules. The state, how long it lasts, and as much of the window as the new one can hold stay."""
        _check(self.name, config)
        with self._lock:
            before = self.current_state
            self._window = _carried_over(self._window, config, self._clock())
            self.config = config
            self._settle()
            after = self.current_state
        self._tell(before, after)

    def inherit(self, other: "ResilientCircuitBreaker") -> None:
        """Takes over state and window of the breaker that guarded the same calls until now."""
        with other._lock:
            state, changed_at, open_for, reopened = other._state, other._changed_at, other._open_for, other._reopened
            window = _carried_over(other._window, self.config, self._clock())
        with self._lock:
            before = self.current_state
            self._move(state)
            self._changed_at, self._open_for, self._reopened = changed_at, open_for, reopened
            self._window = window
            self._settle()
            after = self.current_state
        self._tell(before, after)

    def call(self, func: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls `func`; raises CircuitBreakerError without calling it when the breaker is open."""
        if self._quiet:  # closed, nothing to remember of a success, nobody to tell
            permit = self._epoch
            try:
                return func(*args, **kwargs)
            except BaseException as error:
                self.failed(permit, error)
                raise
        permit = self._epoch if self._passing else self._admit()
        started = self._clock()
        try:
            if self.listeners:
                self._before_call(func, *args, **kwargs)
            result = func(*args, **kwargs)
        except BaseException as error:
            self.failed(permit, error, self._clock() - started)
            raise
        self.succeeded(permit, self._clock() - started)
        return result

    async def call_async(self, func: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Awaits `func`; raises CircuitBreakerError without calling it when the breaker is open."""
        with self.guard():
            if self.listeners:
                self._before_call(func, *args, **kwargs)
            return await func(*args, **kwargs)

    @contextmanager
    def guard(self) -> Generator[None]:
        """Lets the block run if the state allows it and learns from how it ends."""
        permit = self.acquire()
        started = self._clock()
        try:
            yield
        except BaseException as error:
            self.failed(permit, error, self._clock() - started)
            raise
        self.succeeded(permit, self._clock() - started)

    def acquire(self) -> int:
        """A permit for one call, to be given back to `succeeded` or `failed`. Raises CircuitOpenError."""
        if self._passing:
            return self._epoch
        return self._admit()

    def succeeded(self, permit: int, seconds: float = 0.0) -> None:
        """The call with this permit succeeded after so many seconds."""
        if not self._quiet or permit != self._epoch:
            self._record(permit, None, seconds)

    def failed(self, permit: int, error: BaseException, seconds: float = 0.0) -> None:
        """The call with this permit raised `error`; whether that is a failure is decided here."""
        if isinstance(error, CircuitBreakerError) or not isinstance(error, Exception):
            self._release(permit)
        elif self.is_system_error(error):
            self._record(permit, error, seconds)
        else:
            self.succeeded(permit, seconds)

    def _admit(self) -> int:
        now = self._clock()
        if now < self._refusing_until:
            if events.listeners:
                self._emit("breaker_rejection", self.name, STATE_OPEN)
            raise CircuitOpenError(self._open_message, self._refusing_until - now)
        refused: str | None = None
        moved = False
        with self._lock:
            forced = self.config.forced
            waited = now - self._changed_at
            if forced == "open":
                refused = STATE_OPEN
            elif forced is None and self._state == STATE_OPEN and waited >= self._open_for:
                self._move(STATE_HALF_OPEN)
                moved = True
            elif (
                forced is None
                and self._state == STATE_HALF_OPEN
                and self._probing + self._probe_successes >= (self.config.probes)
            ):
                if self._probing and waited >= self._open_for:
                    self._move(STATE_HALF_OPEN)  # the probes never came back: others may try
                else:
                    refused = STATE_HALF_OPEN
            elif forced is None and self._state == STATE_OPEN:
                refused = STATE_OPEN
            if refused is None and self._state == STATE_HALF_OPEN:
                self._probing += 1
            permit = self._epoch
            wait = self.config.open_seconds if forced else max(0.0, self._open_for - waited)
        if moved:
            self._tell(STATE_OPEN, STATE_HALF_OPEN)
        if refused:
            self._emit("breaker_rejection", self.name, refused)
            raise CircuitOpenError(f"circuit breaker {self.name} is {refused}; the call was not made", wait)
        return permit

    def _record(self, permit: int, error: BaseException | None, seconds: float) -> None:
        before = after = self._state
        now = self._clock()
        with self._lock:
            config = self.config
            slow = config.slow_seconds is not None and seconds >= config.slow_seconds
            if permit == self._epoch:
                before = self._state
                if before == STATE_HALF_OPEN and not config.forced:
                    self._record_probe(error is not None or slow)
                else:
                    self._window.record(now, error is not None, slow)
                    if (error is not None or slow) and self._tripped(now):
                        self._open()
                    elif config.mode == "consecutive":
                        self._settle()
                after = self._state
        if error is not None:
            self._emit("breaker_failure", self.name, type(error).__name__)
        for listener in self.listeners:
            if error is None:
                listener.success(self)  # type: ignore[arg-type]  # it looks like pybreaker's, it is none
            else:
                listener.failure(self, error)  # type: ignore[arg-type]
        if before is not after and not config.forced:
            self._tell(before, after)

    def _record_probe(self, failed: bool) -> None:
        self._probing -= 1
        if failed:
            self._reopened += 1
            self._open()
            return
        self._probe_successes += 1
        if self._probe_successes >= self.config.probes:
            self._window.clear()
            self._reopened = 0
            self._move(STATE_CLOSED)

    def _tripped(self, now: float) -> bool:
        config, counts = self.config, self._window.counts(now)
        if config.forced:
            return False
        if config.mode == "consecutive":
            return counts.failures >= config.fail_max
        if counts.calls < config.minimum_calls:
            return False
        return counts.failures >= config.failure_rate * counts.calls or (
            config.slow_seconds is not None and counts.slow >= config.slow_rate * counts.calls
        )

    def _open(self) -> None:
        config = self.config
        grown = min(config.max_open_seconds, config.open_seconds * config.open_growth**self._reopened)
        self._open_for = grown * (1.0 + config.open_jitter * (2.0 * self._random() - 1.0))
        self._move(STATE_OPEN)

    def _enter(self, state: str) -> None:
        """Changes the state because somebody asked for it, as if calls had led to it."""
        with self._lock:
            before = self.current_state
            if state == STATE_CLOSED:
                self._window.clear()
                self._reopened = 0
            if state == STATE_OPEN:
                self._open()
            else:
                self._move(state)
            after = self.current_state
        self._tell(before, after)

    def _release(self, permit: int) -> None:
        with self._lock:
            if permit == self._epoch and self._state == STATE_HALF_OPEN and not self.config.forced:
                self._probing -= 1

    def _move(self, state: str) -> None:
        self._state = state
        self._changed_at = self._clock()
        self._epoch += 1
        self._probing = 0
        self._probe_successes = 0
        self._settle()

    def _settle(self) -> None:
        """Works out once, at each change, what every call has to know."""
        config = self.config
        self._passing = self._state == STATE_CLOSED if config.forced is None else config.forced == "closed"
        refusing = self._state == STATE_OPEN and config.forced is None
        self._refusing_until = self._changed_at + self._open_for if refusing else -math.inf
        self._quiet = (
            self._passing
            and self._state == STATE_CLOSED
            and config.slow_seconds is None
            and isinstance(self._window, InARow)
            and self._window.failures == 0
            and not self.listeners
        )

    def _tell(self, before: str, after: str) -> None:
        if before != after:
            self._emit("breaker_state", self.name, after)
            for listener in self.listeners:
                states: list[Any] = [CircuitBreakerState(self, each) for each in (before, after)]  # type: ignore[arg-type]
                listener.state_change(self, *states)  # type: ignore[arg-type]


def _check(name: str, config: BreakerConfig) -> None:
    if config.fail_max < 1 or config.probes < 1 or config.open_seconds < 0:
        raise ValueError(f"circuit breaker {name}: fail_max and probes must be at least 1, timeout_duration at least 0")
    if config.window_calls < 1 or config.window_seconds <= 0 or config.minimum_calls < 1:
        raise ValueError(f"circuit breaker {name}: a window must hold at least one call and last longer than 0 s")
    if not (0 < config.failure_rate <= 1 and 0 < config.slow_rate <= 1 and 0 <= config.open_jitter < 1):
        raise ValueError(f"circuit breaker {name}: rates must be above 0 and up to 1, open_jitter from 0 to below 1")
    if config.open_growth < 1 or (config.slow_seconds is not None and config.slow_seconds <= 0):
        raise ValueError(f"circuit breaker {name}: open_growth must be at least 1 and slow_seconds above 0")


def _window(config: BreakerConfig) -> Window:
    match config.mode:
        case "count":
            return CountWindow(config.window_calls)
        case "time":
            return TimeWindow(config.window_seconds)
    return InARow()


def _carried_over(window: Window, config: BreakerConfig, now: float) -> Window:
    """A window for `config` with what can be kept of `window`: all that fits, if it is of the same kind."""
    match window:
        case InARow() if config.mode == "consecutive":
            return window.copy()
        case CountWindow() if config.mode == "count":
            return window.resized(config.window_calls)
        case TimeWindow() if config.mode == "time":
            return window.resized(config.window_seconds, now)
    return _window(config)
