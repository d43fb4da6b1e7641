"""Maps errors to status codes, which retries, breakers and records use independently of the transport."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from aurum.resilience.circuit_breaker import CircuitBreakerError
from aurum.resilience.limit import LimitExceededError

CIRCUIT_OPEN = "CIRCUIT_OPEN"
LIMIT_EXCEEDED = "LIMIT_EXCEEDED"


def code_of(error: BaseException) -> str:
    """Returns the status code of general errors and of the policies' own errors."""
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
    """Returns None, for transports whose errors never ask to wait."""
    return None


@dataclass(frozen=True, slots=True)
class ErrorClassifier:
    """How to interpret the errors of a transport.

    Attributes:
        code: Returns the status code of an error.
        retry_after: Returns the seconds that an error asks to wait, or None.
    """

    code: Callable[[BaseException], str] = code_of
    retry_after: Callable[[BaseException], float | None] = no_retry_after
