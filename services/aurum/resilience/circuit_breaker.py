"""A circuit breaker with pybreaker's states, listeners and error, for blocking and async calls.

Closed: calls pass until too many calls in the window fail or are slow. Open: calls are refused for a while. Half-open:
exactly `probes` calls pass. The breaker closes if all of them succeed. One failure opens it again, for longer. No lock
is held during a call.
"""

import itertools
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
from aurum.resilience.error_groups import members
from aurum.resilience.pybreaker_interface import Exclusion, PybreakerInterface
from aurum.resilience.unfinished import UNFINISHED, UnfinishedCallError, unfinished
from aurum.resilience.windows import ConsecutiveWindow, Counts, CountWindow, TimeWindow, Window

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
    """Raised when the breaker refuses a call. Its arguments are the message and the seconds until a retry.

    It has no constructor of its own, because creating it then takes a third of the time.
    """

    @property
    def retry_after(self) -> float:
        """Seconds after which the breaker may let a call through."""
        return float(self.args[1])

    def __str__(self) -> str:
        return str(self.args[0])


_SAYS_NOTHING = (CircuitBreakerError, UnfinishedCallError)  # errors of calls that did not reach their target


@dataclass(frozen=True, slots=True)
class BreakerConfig:
    """When a breaker opens and for how long.

    The modes `count` and `time` need at least `minimum_calls` calls in the window. They open the breaker at a share of
    failures (`failure_rate`) or of slow calls (`slow_rate`). In the mode `consecutive`, a slow call counts as a
    failure.

    Attributes:
        mode: `consecutive` (fail_max failures in a row), `count` (share of the last window_calls calls) or `time`
            (share of the calls of the last window_seconds seconds).
        slow_seconds: A call that takes this long or longer is slow. None: no call is slow.
        open_seconds: How long the breaker stays open. The time is multiplied by open_growth each time a probe fails, up
            to max_open_seconds. It varies at random by a share of up to open_jitter in both directions.
        probes: Number of calls that pass when the breaker is half-open.
        forced: `open` refuses every call and `closed` lets every call through, whatever the window holds.
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
    """Refuses calls to a dependency that keeps failing, and later tests it with a few calls.

    Refused calls raise CircuitOpenError, a subclass of pybreaker's CircuitBreakerError. A probe occupies its place for
    as long as it runs, even beyond the time that the breaker was open.

    With config.slow_seconds, a call counts as slow as soon as it has taken that long, even before it ends. The next
    call then finds the breaker open. A cancelled call counts as slow if it took that long. Otherwise it counts neither
    as a success nor as a failure.

    Args:
        name: Name for events, metrics and errors.
        fail_max: Failures in a row that open the breaker, 5 by default.
        timeout_duration: Seconds that it stays open, 60.0 by default.
        probes: Calls let through when half-open, 1 by default.
        is_failure: Decides which exceptions count as failures. By default all except CircuitBreakerError count. It is
            called for each member of an exception group.
        clock: Monotonic clock in seconds.
        config: The complete configuration. It replaces fail_max, timeout_duration and probes.
        listeners: pybreaker listeners. They are called on the thread of the call, and their errors are logged.
        exclude: Exceptions that are never failures, whatever is_failure returns. Each is a type or a predicate of the
            exception.
        random: Returns random numbers from 0 to 1 for the jitter.
        emit: Receives the events of the breaker. By default they go to all subscribers.
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
        _check_config(name, self.config)
        self.listeners = tuple(listeners)
        self.excluded_exceptions = tuple(exclude)
        self._is_failure = is_failure or (lambda error: True)
        self._clock = clock
        self._random = random
        self._emit = emit
        self._always_emit = emit is not events.emit  # the global emit need not be called without subscribers
        self._lock = threading.Lock()
        self._state: str = STATE_CLOSED
        self._make_window: Window = _make_window(self.config)
        self._changed_at = clock()
        self._open_for = 0.0
        self._reopened = 0  # how often a probe has failed since the breaker was last closed
        self._numbers = itertools.count()  # for periods and calls, so that permits of both are distinct
        self._epoch = next(self._numbers)  # the current period; also the permit of calls without one of their own
        self._probes: set[int] = set()  # permits of the probes in progress
        self._probe_successes = 0
        self._watched: dict[int, float] = {}  # start times of the calls that may become slow, by permit
        self._overdue: dict[int, float] = {}  # start times of the calls that have become slow and still run, by permit
        self._schedule_overdue_check(self._changed_at)
        self._precompute()

    @property
    def name(self) -> str:
        """The name used in events, metrics and errors."""
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        self._name = name
        self._open_message = f"circuit breaker {name} is open; the call was not made"

    @property
    def current_state(self) -> str:
        """STATE_CLOSED, STATE_OPEN or STATE_HALF_OPEN. A forced state takes precedence."""
        if self.config.forced:
            return STATE_OPEN if self.config.forced == "open" else STATE_CLOSED
        return self._state

    @property
    def fail_counter(self) -> int:
        """Number of failures in the window."""
        return self.counts.failures

    @property
    def counts(self) -> Counts:
        """Counts of calls, failures and slow calls in the window."""
        with self._lock:
            return self._make_window.counts(self._clock())

    def configure(self, config: BreakerConfig) -> None:
        """Changes the configuration.

        The state, its remaining time and the probes in progress stay. The window keeps as many calls as the new one can
        hold.
        """
        _check_config(self.name, config)
        with self._lock:
            before = self.current_state
            old, now = self.config, self._clock()
            self._make_window = _transfer_window(self._make_window, config, now)
            self.config = config
            if config.mode != old.mode or (config.mode != "consecutive" and config.slow_seconds != old.slow_seconds):
                # A slow call is counted once in a row, but in a window for as long as it runs
                self._watched.update(self._overdue)
                self._overdue.clear()
            self._schedule_overdue_check(now)
            if config.forced != old.forced and self._state != STATE_CLOSED:
                self._begin_period(now)  # outcomes of calls that were forced through do not count afterwards
            if self._state == STATE_HALF_OPEN and self._probe_successes >= config.probes:
                self._close(now)
            self._precompute()
            after = self.current_state
        self._report_transition((before, after))

    def inherit(self, other: "ResilientCircuitBreaker") -> None:
        """Takes over the state and the window of the breaker that guarded the same calls until now."""
        with other._lock:
            state, changed_at, open_for, reopened = other._state, other._changed_at, other._open_for, other._reopened
            window = _transfer_window(other._make_window, self.config, self._clock())
        with self._lock:
            before = self.current_state
            self._move(state, changed_at)
            self._open_for, self._reopened = open_for, reopened
            self._make_window = window
            self._precompute()
            after = self.current_state
        self._report_transition((before, after))

    def call(self, func: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls `func` and returns its result.

        Raises:
            CircuitBreakerError: The breaker is open. `func` was not called.
            TypeError: `func` returned a coroutine or a generator, whose outcome is not known yet.
        """
        permit = self._quick
        if permit is not None:
            try:
                # Without the branch, unpacking empty kwargs would take as long as the check of the result
                result = func(*args, **kwargs) if kwargs else func(*args)  # type: ignore[call-arg]
            except BaseException as error:
                self.failed(permit, error)
                raise
            if result.__class__ in UNFINISHED:
                raise self._unfinished(result)
            return result
        started = self._clock()
        permit = self._epoch if self._passing else self._watch(started) if self._watching else self._admit(started)
        try:
            if self.listeners:
                self._before_call(func, *args, **kwargs)
            result = func(*args, **kwargs)
            if result.__class__ in UNFINISHED:
                raise self._unfinished(result)
        except BaseException as error:
            self.failed(permit, error, self._clock() - started)
            raise
        now = self._clock()
        if (moved := self._count(permit, False, now - started, now)) or self.listeners:
            self._succeeded(moved)
        return result

    async def call_async(self, func: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Awaits `func`. Raises CircuitBreakerError without calling it if the breaker is open."""
        with self.guard():
            if self.listeners:
                self._before_call(func, *args, **kwargs)
            return await func(*args, **kwargs)

    @contextmanager
    def guard(self) -> Generator[None]:
        """Runs the block if the state allows it, and records the outcome. Raises CircuitOpenError otherwise."""
        permit = self.acquire()
        started = self._clock()
        try:
            yield
        except BaseException as error:
            self.failed(permit, error, self._clock() - started)
            raise
        self.succeeded(permit, self._clock() - started)

    def acquire(self) -> int:
        """Returns a permit for one call. Raises CircuitOpenError if the call is refused.

        Each permit must be given back once with `succeeded` or `failed`, even if the call is cancelled. A probe
        occupies its place until then.
        """
        if self._passing:
            return self._epoch
        return self._watch(self._clock()) if self._watching else self._admit(self._clock())

    def succeeded(self, permit: int, seconds: float = 0.0) -> None:
        """Records that the call with this permit succeeded after `seconds`."""
        if permit != self._quick:
            self._succeeded(self._count(permit, False, seconds, self._clock()))

    def failed(self, permit: int, error: BaseException, seconds: float = 0.0) -> None:
        """Records that the call with this permit raised `error`, and decides whether that is a failure."""
        if not isinstance(error, Exception):
            self._cancelled(permit, seconds)
            return
        errors = members(error)
        if all(isinstance(each, _SAYS_NOTHING) for each in errors):
            self._release(permit)
            return
        try:
            failure = any(self.is_system_error(each) for each in errors)
        except BaseException:
            self._release(permit)
            raise
        if failure:
            moved = self._count(permit, True, seconds, self._clock())
            self._emit("breaker_failure", self.name, type(error).__name__)
            for listener in self.listeners:
                events.deliver(listener.failure, self, error)
            self._report_transition(moved)
        else:
            self.succeeded(permit, seconds)

    def _watch(self, now: float) -> int:
        """Returns a permit for a call that becomes slow after slow_seconds, in most cases without taking the lock."""
        permit = next(self._numbers)  # taken before the check, so that it is outdated if the state changes in between
        if self._watching and now < self._look_at:
            self._watched[permit] = now
            return permit
        return self._admit(now)

    def _admit(self, now: float) -> int:
        if now < self._refusing_until:
            if self._always_emit or events.listeners:
                self._emit("breaker_rejection", self.name, STATE_OPEN)
            raise CircuitOpenError(self._open_message, self._refusing_until - now)
        with self._lock:
            opened = now >= self._look_at and self._find_overdue(now)
            tried = self._try_again(now)
            refused = self._refused()
            if not refused:
                permit = self._permit(now)
            waited = now - self._changed_at
            wait = self.config.open_seconds if self.config.forced else max(0.0, self._open_for - waited)
        if opened:
            self._report_transition((STATE_CLOSED, STATE_OPEN))
        if tried:
            self._report_transition((STATE_OPEN, STATE_HALF_OPEN))
        if refused:
            self._emit("breaker_rejection", self.name, refused)
            raise CircuitOpenError(f"circuit breaker {self.name} is {refused}; the call was not made", wait)
        return permit

    def _try_again(self, now: float) -> bool:
        """Makes the breaker half-open if it has been open for long enough. Returns whether it did."""
        due = self._state == STATE_OPEN and now >= self._changed_at + self._open_for
        if not due or self.config.forced:
            return False
        self._move(STATE_HALF_OPEN, now)
        return True

    def _refused(self) -> str | None:
        """Returns the state that refuses calls at present, or None if calls may pass."""
        if self.config.forced:
            return STATE_OPEN if self.config.forced == "open" else None
        full = len(self._probes) + self._probe_successes >= self.config.probes
        return self._state if self._state == STATE_OPEN or (self._state == STATE_HALF_OPEN and full) else None

    def _permit(self, now: float) -> int:
        if self._passing:
            return self._epoch
        permit = next(self._numbers)
        if self._watching:
            self._watched[permit] = now
        else:
            self._probes.add(permit)
        return permit

    def _find_overdue(self, now: float) -> bool:
        """Counts the watched calls that have become slow. Returns whether that has opened the breaker."""
        slow, in_a_row = self.config.slow_seconds, self.config.mode == "consecutive"
        any_overdue = False
        for permit, began in list(self._watched.items()):
            if permit < self._epoch:  # its thread took the permit before the period changed
                del self._watched[permit]
            elif slow is not None and now - began >= slow:
                self._overdue[permit] = self._watched.pop(permit)
                any_overdue = True
                if in_a_row:
                    self._make_window.record(now, False, True)
        self._schedule_overdue_check(now)
        if not (any_overdue and self._state == STATE_CLOSED and self._should_open(now)):
            return False
        self._open(now)
        return True

    def _schedule_overdue_check(self, now: float) -> None:
        """Sets the earliest time at which a call, watched now or begun later, can become slow."""
        slow = self.config.slow_seconds
        self._look_at = math.inf if slow is None else min([now, *self._watched.values()]) + slow

    def _succeeded(self, moved: tuple[str, str] | None) -> None:
        for listener in self.listeners:
            events.deliver(listener.success, self)
        self._report_transition(moved)

    def _count(self, permit: int, failed: bool, seconds: float, now: float) -> tuple[str, str] | None:
        """Records an outcome if the call began in the current period or is a probe.

        Returns the states before and after if the state has changed, otherwise None.
        """
        with self._lock:
            config = self.config
            slow = config.slow_seconds is not None and seconds >= config.slow_seconds
            if permit == self._epoch or (self._watched.pop(permit, None) is not None and permit > self._epoch):
                counts = self._state is STATE_CLOSED or config.forced is not None
            elif self._overdue.pop(permit, None) is not None:
                counts = config.mode != "consecutive"  # in a row it has already been counted
            elif permit in self._probes:
                self._probes.discard(permit)
                self._count_probe(failed or slow, now)
                return None if config.forced else (STATE_HALF_OPEN, self._state)
            else:
                return None
            if not counts:
                return None
            self._make_window.record(now, failed, slow)
            if (failed or slow) and self._should_open(now):
                self._open(now)
                return STATE_CLOSED, STATE_OPEN
            if config.mode == "consecutive":
                self._precompute()
        return None

    def _count_probe(self, failed: bool, now: float) -> None:
        if failed:
            self._reopened += 1
            self._open(now)
            return
        self._probe_successes += 1
        if self._probe_successes >= self.config.probes:
            self._close(now)

    def _should_open(self, now: float) -> bool:
        config, counts = self.config, self._make_window.counts(now)
        if config.forced:
            return False
        if config.mode == "consecutive":
            return counts.failures >= config.fail_max
        overdue = len(self._overdue)
        calls = counts.calls + overdue
        if calls < config.minimum_calls:
            return False
        return counts.failures >= config.failure_rate * calls or (
            config.slow_seconds is not None and counts.slow + overdue >= config.slow_rate * calls
        )

    def _open(self, now: float) -> None:
        config = self.config
        grown = min(config.max_open_seconds, config.open_seconds * config.open_growth**self._reopened)
        self._open_for = grown * (1.0 + config.open_jitter * (2.0 * self._random() - 1.0))
        self._move(STATE_OPEN, now)

    def _close(self, now: float) -> None:
        self._make_window.clear()
        self._reopened = 0
        self._move(STATE_CLOSED, now)

    def _cancelled(self, permit: int, seconds: float) -> None:
        slow = self.config.slow_seconds
        if slow is not None and seconds >= slow:
            self._report_transition(self._count(permit, False, seconds, self._clock()))
        else:
            self._release(permit)

    def _enter(self, state: str) -> None:
        """Changes the state on request, as if calls had led to it."""
        with self._lock:
            before, now = self.current_state, self._clock()
            if state == STATE_CLOSED:
                self._close(now)
            elif state == STATE_OPEN:
                self._open(now)
            else:
                self._move(state, now)
            after = self.current_state
        self._report_transition((before, after))

    def _release(self, permit: int) -> None:
        """Discards the permit of a call whose outcome says nothing about the target."""
        with self._lock:
            self._probes.discard(permit)
            self._watched.pop(permit, None)
            self._overdue.pop(permit, None)

    def _unfinished(self, result: object) -> UnfinishedCallError:
        return unfinished(
            f"circuit breaker {self.name}: call", result, "call_async", "`with breaker.guard():` around its iteration"
        )

    def _move(self, state: str, now: float) -> None:
        self._state = state
        self._changed_at = now
        self._probes.clear()
        self._probe_successes = 0
        self._begin_period(now)
        self._precompute()

    def _begin_period(self, now: float) -> None:
        """Begins a new period: the outcomes of calls that began earlier no longer count, except for probes."""
        self._epoch = next(self._numbers)
        self._watched.clear()
        self._overdue.clear()
        self._schedule_overdue_check(now)

    def _precompute(self) -> None:
        """Precomputes the values that every call needs. It is called at each change."""
        config = self.config
        passing = self._state == STATE_CLOSED if config.forced is None else config.forced == "closed"
        self._passing = passing and config.slow_seconds is None
        self._watching = passing and not self._passing
        refusing = self._state == STATE_OPEN and config.forced is None
        self._refusing_until = self._changed_at + self._open_for if refusing else -math.inf
        # The permit of calls whose success need not be recorded or reported, or None if every success has to be
        quiet = (
            isinstance(self._make_window, ConsecutiveWindow) and self._make_window.failures == 0 and not self.listeners
        )
        self._quick = self._epoch if quiet and self._passing and self._state == STATE_CLOSED else None

    def _report_transition(self, moved: tuple[str, str] | None) -> None:
        """Reports a change of state to subscribers and listeners. moved: The states before and after, or None."""
        if moved is not None and moved[0] != moved[1]:
            self._emit("breaker_state", self.name, moved[1])
            for listener in self.listeners:
                states: list[Any] = [CircuitBreakerState(self, each) for each in moved]  # type: ignore[arg-type]
                events.deliver(listener.state_change, self, *states)


def _check_config(name: str, config: BreakerConfig) -> None:
    if config.fail_max < 1 or config.probes < 1 or config.open_seconds < 0:
        raise ValueError(f"circuit breaker {name}: fail_max and probes must be at least 1, timeout_duration at least 0")
    if config.window_calls < 1 or config.window_seconds <= 0 or config.minimum_calls < 1:
        raise ValueError(f"circuit breaker {name}: a window must hold at least one call and last longer than 0 s")
    if not (0 < config.failure_rate <= 1 and 0 < config.slow_rate <= 1 and 0 <= config.open_jitter < 1):
        raise ValueError(f"circuit breaker {name}: rates must be above 0 and up to 1, open_jitter from 0 to below 1")
    if config.open_growth < 1 or (config.slow_seconds is not None and config.slow_seconds <= 0):
        raise ValueError(f"circuit breaker {name}: open_growth must be at least 1 and slow_seconds above 0")


def _make_window(config: BreakerConfig) -> Window:
    match config.mode:
        case "count":
            return CountWindow(config.window_calls)
        case "time":
            return TimeWindow(config.window_seconds)
    return ConsecutiveWindow()


def _transfer_window(window: Window, config: BreakerConfig, now: float) -> Window:
    """Returns a window for `config` that keeps the calls of `window` that fit, if both are of the same kind."""
    match window:
        case ConsecutiveWindow() if config.mode == "consecutive":
            return window.copy()
        case CountWindow() if config.mode == "count":
            return window.resized(config.window_calls)
        case TimeWindow() if config.mode == "time":
            return window.resized(config.window_seconds, now)
    return _make_window(config)
