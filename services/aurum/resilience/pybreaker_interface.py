"""pybreaker's interface for our circuit breaker: decorator, context manager, listeners, exclusions and states.

Names and meanings are those of pybreaker 1.4 (https://github.com/danielfm/pybreaker). docs/resilience.md lists the
differences.
"""

import functools
import inspect
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, overload

from pybreaker import STATE_CLOSED, STATE_HALF_OPEN, STATE_OPEN, CircuitBreakerListener, CircuitBreakerState

from aurum.resilience import events

if TYPE_CHECKING:
    from aurum.resilience.circuit_breaker import BreakerConfig

# A type, whose subclasses are excluded too, or a predicate of the exception
Exclusion: TypeAlias = type[BaseException] | Callable[[Any], bool]
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class PybreakerInterface(ABC):
    """The part of a circuit breaker that is compatible with pybreaker.

    `listeners` and `excluded_exceptions` must be changed through the methods only.
    """

    config: "BreakerConfig"
    listeners: tuple[CircuitBreakerListener, ...]
    excluded_exceptions: tuple[Exclusion, ...]
    _lock: threading.Lock
    _is_failure: Callable[[BaseException], bool]
    _probe_successes: int

    @property
    @abstractmethod
    def current_state(self) -> str:
        """The name of the state: closed, open or half-open."""

    @abstractmethod
    def configure(self, config: "BreakerConfig") -> None:
        """Changes the configuration and keeps the state."""

    @abstractmethod
    def call(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Calls a function through the breaker. Raises CircuitBreakerError if the breaker refuses it."""

    @abstractmethod
    async def call_async(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Awaits a coroutine function through the breaker. Raises CircuitBreakerError if the breaker refuses it."""

    @abstractmethod
    def guard(self) -> AbstractContextManager[None]:
        """Returns a context manager that passes its block through the breaker."""

    @abstractmethod
    def _enter(self, state: str) -> None: ...

    @abstractmethod
    def _precompute(self) -> None: ...

    @property
    def state(self) -> CircuitBreakerState:
        """The state as an object whose `name` is `current_state`. The name of a state can be assigned to it."""
        return CircuitBreakerState(self, self.current_state)  # type: ignore[arg-type]  # it looks like pybreaker's

    @state.setter
    def state(self, name: str) -> None:
        if name not in {STATE_CLOSED, STATE_OPEN, STATE_HALF_OPEN}:
            raise ValueError(f"{name!r} is no state; it must be {STATE_CLOSED}, {STATE_OPEN} or {STATE_HALF_OPEN}")
        self._enter(name)

    def open(self) -> None:
        """Opens the breaker, for as long as after failures."""
        self._enter(STATE_OPEN)

    def close(self) -> None:
        """Closes the breaker and clears its failures."""
        self._enter(STATE_CLOSED)

    def half_open(self) -> None:
        """Makes the breaker half-open: it lets through as many calls as must succeed before it closes."""
        self._enter(STATE_HALF_OPEN)

    @property
    def fail_max(self) -> int:
        """Failures in a row that open the breaker."""
        return self.config.fail_max

    @fail_max.setter
    def fail_max(self, number: int) -> None:
        self.configure(replace(self.config, fail_max=number))

    @property
    def reset_timeout(self) -> float:
        """Seconds that the breaker stays open."""
        return self.config.open_seconds

    @reset_timeout.setter
    def reset_timeout(self, seconds: float) -> None:
        self.configure(replace(self.config, open_seconds=seconds))

    @property
    def success_threshold(self) -> int:
        """Successful calls that a half-open breaker needs to close."""
        return self.config.probes

    @success_threshold.setter
    def success_threshold(self, number: int) -> None:
        self.configure(replace(self.config, probes=number))

    @property
    def success_counter(self) -> int:
        """Calls that have succeeded since the breaker became half-open."""
        return self._probe_successes

    def add_listener(self, listener: CircuitBreakerListener) -> None:
        """Adds a listener for all further events."""
        self.add_listeners(listener)

    def add_listeners(self, *listeners: CircuitBreakerListener) -> None:
        """Adds several listeners."""
        with self._lock:
            self.listeners = (*self.listeners, *listeners)
            self._precompute()

    def remove_listener(self, listener: CircuitBreakerListener) -> None:
        """Removes a listener. Raises ValueError if it was not added."""
        with self._lock:
            self.listeners = _without(self.listeners, listener)
            self._precompute()

    def add_excluded_exception(self, exception: Exclusion) -> None:
        """Excludes an exception from the failures."""
        self.add_excluded_exceptions(exception)

    def add_excluded_exceptions(self, *exceptions: Exclusion) -> None:
        """Excludes several exceptions."""
        with self._lock:
            self.excluded_exceptions = (*self.excluded_exceptions, *exceptions)

    def remove_excluded_exception(self, exception: Exclusion) -> None:
        """Counts an exception as a failure again. Raises ValueError if it is not excluded."""
        with self._lock:
            self.excluded_exceptions = _without(self.excluded_exceptions, exception)

    def is_system_error(self, exception: BaseException) -> bool:
        """Whether an exception counts as a failure."""
        for exclusion in self.excluded_exceptions:
            if isinstance(exclusion, type):
                if isinstance(exception, exclusion):
                    return False
            elif exclusion(exception):
                return False
        return self._is_failure(exception)

    @contextmanager
    def calling(self) -> Generator[None]:
        """Guards a block as `call` guards a function."""
        with self.guard():
            self._before_call(self.calling)
            yield

    @overload
    def __call__(self, func: F) -> F: ...

    @overload
    def __call__(self, func: None = None) -> Callable[[F], F]: ...

    def __call__(self, func: Any = None) -> Any:
        """Decorates a function or a coroutine function so that each call passes through the breaker.

        The decorator may be written with or without parentheses.
        """
        if func is None:
            return self
        if inspect.iscoroutinefunction(func):

            @functools.wraps(func)
            async def wait(*args: Any, **kwargs: Any) -> Any:
                return await self.call_async(func, *args, **kwargs)

            return wait

        @functools.wraps(func)
        def call(*args: Any, **kwargs: Any) -> Any:
            return self.call(func, *args, **kwargs)

        return call

    def _before_call(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        for listener in self.listeners:
            events.deliver(listener.before_call, self, func, *args, **kwargs)


def _without(all_of_them: tuple[T, ...], one: T) -> tuple[T, ...]:
    """Returns the tuple without the first occurrence of `one`. Raises ValueError if there is none."""
    at = all_of_them.index(one)
    return all_of_them[:at] + all_of_them[at + 1 :]
