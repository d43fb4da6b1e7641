"""Events of the policies, for subscribers such as metrics, spans and tests."""

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
    """An event of a policy.

    Attributes:
        kind: Kind of the event.
        policy: Name of the breaker, budget, limit or retry policy.
        value: Detail whose meaning depends on the kind.
    """

    kind: EventKind
    policy: str
    value: str = ""


class Emit(Protocol):
    """A function that accepts events, like `emit`."""

    def __call__(self, kind: EventKind, policy: str, value: str = "") -> None:
        """Sends an event."""


Listener = Callable[[Event], None]
listeners: list[Listener] = []  # changed by `subscribe` only; public, so that fast code can check whether it is empty
_failed: set[str] = set()  # names of callbacks whose first error has been logged


def subscribe(listener: Listener) -> Callable[[], None]:
    """Calls `listener` for each further event, on the thread of the event.

    Errors of a listener are logged. They reach neither the other listeners nor the call that caused the event.

    Returns:
        A function that ends the subscription.
    """
    listeners.append(listener)
    return lambda: listeners.remove(listener)


def emit(kind: EventKind, policy: str, value: str = "") -> None:
    """Sends an event to all listeners."""
    if listeners:
        event = Event(kind, policy, value)
        for listener in tuple(listeners):
            try:
                listener(event)
            except Exception:
                _report(listener)


def deliver(callback: Callable[..., object], *arguments: Any, **named: Any) -> None:
    """Calls an observer, such as a breaker's listener, and logs its errors."""
    try:
        callback(*arguments, **named)
    except Exception:
        _report(callback)


def _report(callback: Callable[..., object]) -> None:
    """Logs the current exception of a callback: the first one with traceback at ERROR, later ones at DEBUG.

    An error may occur at each call, so repeating it at ERROR would flood the log.
    """
    name = f"{callback.__module__}.{getattr(callback, '__qualname__', type(callback).__qualname__)}"
    first = name not in _failed
    _failed.add(name)
    logger.log(
        logging.ERROR if first else logging.DEBUG,
        "%s raised an error while it handled an event; the call continues. Its further errors are logged at DEBUG",
        name,
        exc_info=True,
    )
