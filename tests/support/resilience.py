"""A fixed clock, recorded events, and a breaker driven step by step."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from aurum.resilience import BreakerConfig, CircuitBreakerError, ResilientCircuitBreaker, events


class Clock:
    """Stands still at `now`."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@contextlib.contextmanager
def listening() -> Iterator[list[tuple[str, str, str]]]:
    """All events within the block, in order: kind, policy, value."""
    told: list[tuple[str, str, str]] = []
    stop = events.subscribe(lambda event: told.append((event.kind, event.policy, event.value)))
    try:
        yield told
    finally:
        stop()


def breaker_of(clock: Clock, name: str = "b", **parts: Any) -> ResilientCircuitBreaker:
    return ResilientCircuitBreaker(name, config=BreakerConfig(**parts), clock=clock)


def ends(breaker: ResilientCircuitBreaker, kinds: str, seconds: float = 0.0) -> str:
    """Calls one after the other, o that succeed and f that fail; the state after each, by its first letter."""
    states = []
    for kind in kinds:
        permit = breaker.acquire()
        if kind == "f":
            breaker.failed(permit, OSError(), seconds)
        else:
            breaker.succeeded(permit, seconds)
        states.append(breaker.current_state[0])
    return "".join(states)


def refusal(breaker: ResilientCircuitBreaker) -> tuple[str, float]:
    with pytest.raises(CircuitBreakerError) as caught:
        breaker.acquire()
    return str(caught.value), caught.value.retry_after
