"""What happens inside the policies, told to whoever subscribes: metrics, spans, tests."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

EventKind = Literal[
    "breaker_state",  # value: the state's name
    "breaker_failure",  # value: the exception's type
    "breaker_rejection",  # value: the state's name
    "retry",  # value: the exception's type that is retried
    "retry_exhausted",  # value: the exception's type that the caller sees
    "budget_exhausted",  # value: empty
    "budget_tokens",  # value: tokens left, as text
    "limit_rejection",  # value: empty
    "limit_change",  # value: the limit, as text
]


@dataclass(frozen=True, slots=True)
class Event:
    kind: EventKind
    policy: str
    value: str = ""


Listener = Callable[[Event], None]
_listeners: list[Listener] = []


def subscribe(listener: Listener) -> Callable[[], None]:
    """Calls `listener` for each event from now on, on the thread where it happens; returns how to stop that."""
    _listeners.append(listener)
    return lambda: _listeners.remove(listener)


def emit(kind: EventKind, policy: str, value: str = "") -> None:
    if _listeners:
        event = Event(kind, policy, value)
        for listener in tuple(_listeners):
            listener(event)
