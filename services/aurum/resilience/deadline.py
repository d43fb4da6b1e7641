"""The deadline by which a caller wants its answer. It travels with the call and shrinks by a margin at each hop."""

import contextlib
import contextvars
import time
from collections.abc import Callable

from aurum.resilience.scope import scoped

# The margin that lets a server answer before its caller gives up: a share of the remaining time, bounded in seconds
MARGIN_SHARE = 0.1
MARGIN_BOUNDS = (0.005, 0.25)

# The time on the pipelines' clock by which the current work must be done; None without a deadline
deadline: contextvars.ContextVar[float | None] = contextvars.ContextVar("aurum_deadline", default=None)


class DeadlineExceededError(TimeoutError):
    """Raised when the caller's deadline passed before the call was made or answered."""


def deadline_scope(
    seconds: float | None, clock: Callable[[], float] = time.monotonic
) -> contextlib.AbstractContextManager[None]:
    """Limits everything inside to `seconds` from now, or to the present deadline if that is earlier."""
    current = deadline.get()
    at = None if seconds is None else clock() + seconds
    if current is not None and (at is None or current < at):
        at = current
    return scoped(deadline, at)


def received_deadline(seconds: float | None) -> contextlib.AbstractContextManager[None]:
    """Returns the scope of a request whose sender waits for `seconds`. The margin is subtracted."""
    if seconds is None:
        return deadline_scope(None)
    least, most = MARGIN_BOUNDS
    margin = min(max(seconds * MARGIN_SHARE, least), most)
    return deadline_scope(max(0.0, seconds - margin))


def remaining(clock: Callable[[], float] = time.monotonic) -> float | None:
    """Seconds left until the deadline, at least 0. None without a deadline."""
    at = deadline.get()
    return None if at is None else max(0.0, at - clock())
