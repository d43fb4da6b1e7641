"""Which status code an error stands for: what retries, breakers and records go by, whatever the transport."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from aurum.resilience.circuit_breaker import CircuitBreakerError
from aurum.resilience.limit import LimitExceededError

CIRCUIT_OPEN = "CIRCUIT_OPEN"
LIMIT_EXCEEDED = "LIMIT_EXCEEDED"


def code_of(error: BaseException) -> str:
    """The code of errors that every program has, and of the policies' own."""
    match error:
        case CircuitBreakerError():
            return CIRCUIT_OPEN
        case LimitExceededError():
            return LIMIT_EXCEEDED
        case TimeoutError():
            return "DEADLINE_EXCEEDED"
        case asyncio.CancelledError():
            return "CANCELLED"
        case OSError():
            return "UNAVAILABLE"
    return "UNKNOWN"


def no_retry_after(error: BaseException) -> float | None:
    return None


@dataclass(frozen=True, slots=True)
class ErrorView:
    """How a transport's errors are read. code: its status code. retry_after: seconds that it asks to wait, or None."""

    code: Callable[[BaseException], str] = code_of
    retry_after: Callable[[BaseException], float | None] = no_retry_after
