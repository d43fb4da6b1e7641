"""The time by which a caller wants its answer; it travels with the call and shrinks by a margin at each hop."""

import contextlib
import contextvars
import time
from collections.abc import Iterator

MARGIN = 0.005  # seconds kept back at each hop, to answer before the caller has given up

_deadline: contextvars.ContextVar[float | None] = contextvars.ContextVar("aurum_deadline", default=None)


class DeadlineExceededError(TimeoutError):
    """The caller's deadline passed before the call was made or answered."""


@contextlib.contextmanager
def deadline_scope(seconds: float | None) -> Iterator[None]:
    """Bounds everything inside by `seconds` from now, or by the deadline already in force if that is earlier."""
    current = _deadline.get()
    at = None if seconds is None else time.monotonic() + seconds
    if current is not None and (at is None or current < at):
        at = current
    token = _deadline.set(at)
    try:
        yield
    finally:
        _deadline.reset(token)


def remaining() -> float | None:
    """Seconds left for an outgoing call, the margin taken off; None without a deadline, never below 0."""
    at = _deadline.get()
    return None if at is None else max(0.0, at - time.monotonic() - MARGIN)
