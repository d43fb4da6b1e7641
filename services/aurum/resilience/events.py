"""What happens inside the policies, told to whoever subscribes: metrics, spans, tests."""

import logging
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

logger = logging.getLogger(__name__)

EventKind = Literal[
    "breaker_state",  # value: the state's name
    "breaker_failure",  # value: the error's type
    "breaker_rejection",  # value: the state's name
    "retry",  # value: the type of the error that is retried
    "retry_exhausted",  # value: the type of the error that the caller sees
    "hedge",  # value: the number of the attempt
    "budget_exhausted",  # value: empty
    "limit_rejection",  # value: the criticality's name
    "limit_change",  # value: the limit, as text
    "shadow_decision",  # value: what a policy that does not enforce would have done
]


class Event(NamedTuple):
    """policy: the name of the breaker, budget, limit or retry policy that it happened to."""

    kind: EventKind
    policy: str
    value: str = ""


class Emit(Protocol):
    """Takes what happens, as `emit` does."""

    def __call__(self, kind: EventKind, policy: str, value: str = "") -> None: ...


Listener = Callable[[Event], None]
listeners: list[Listener] = []  # to be changed by `subscribe` alone; public, so that what is quick can look first
_failed: set[str] = set()  # names of callbacks whose failure the log has


def subscribe(listener: Listener) -> Callable[[], None]:
    """Calls `listener` for each event from now on, on the thread where it happens; returns how to stop that. An error
    that it raises is logged, and reaches neither the other listeners nor the call that the event belongs to."""
    listeners.append(listener)
    return lambda: listeners.remove(listener)


def emit(kind: EventKind, policy: str, value: str = "") -> None:
    """Tells all listeners."""
    if listeners:
        event = Event(kind, policy, value)
        for listener in tuple(listeners):
            try:
                listener(event)
            except Exception:
                _report(listener)


def deliver(callback: Callable[..., object], *arguments: Any, **named: Any) -> None:
    """Calls what only wants to know, such as a listener of a breaker; logs an error of it."""
    try:
        callback(*arguments, **named)
    except Exception:
        _report(callback)


def _report(callback: Callable[..., object]) -> None:
    """Logs the current error: the first of each callback as an error with its trace, for there may be one at each
    call; the others for debugging."""
    name = f"{callback.__module__}.{getattr(callback, '__qualname__', type(callback).__qualname__)}"
    first = name not in _failed
    _failed.add(name)
    logger.log(
        logging.ERROR if first else logging.DEBUG,
        "%s raised an error when it was told of an event; the call goes on without it. Further errors of it are logged "
        "at DEBUG",
        name,
        exc_info=True,
    )
