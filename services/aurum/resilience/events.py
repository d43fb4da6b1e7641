"""What happens inside the policies, told to whoever subscribes: metrics, spans, tests."""

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

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


def subscribe(listener: Listener) -> Callable[[], None]:
    """Calls `listener` for each event from now on, on the thread where it happens; returns how to stop that."""
    listeners.append(listener)
    return lambda: listeners.remove(listener)


def emit(kind: EventKind, policy: str, value: str = "") -> None:
    """Tells all listeners."""
    if listeners:
        event = Event(kind, policy, value)
        for listener in tuple(listeners):
            listener(event)
