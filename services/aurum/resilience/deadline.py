"""The time by which a caller wants its answer; it travels with the call and shrinks by a margin at each hop."""

import contextlib
import contextvars
import time
from collections.abc import Callable

from aurum.resilience.scope import scoped

# What a server keeps back, to answer before its caller has given up: a share of the time it has, within seconds.
MARGIN_SHARE = 0.1
MARGIN_BOUNDS = (0.005, 0.25)

# The moment, on the clock of the pipelines, by which the current work has to be done; None without a deadline.
deadline: contextvars.ContextVar[float | None] = contextvars.ContextVar("aurum_deadline", default=None)


class DeadlineExceededError(TimeoutError):
    """The caller's deadline passed before the call was made or answered."""


def deadline_scope(
    seconds: float | None, clock: Callable[[], float] = time.monotonic
) -> contextlib.AbstractContextManager[None]:
    """Bounds everything inside by `seconds` from now, or by the deadline already in force if that is earlier."""
    current = deadline.get()
    at = None if seconds is None else clock() + seconds
    if current is not None and (at is None or current < at):
        at = current
    return scoped(deadline, at)


def deadline_at(moment: float) -> contextlib.AbstractContextManager[None]:
    """Bounds everything inside by that moment, or by the deadline already in force if that is earlier."""
    current = deadline.get()
    return scoped(deadline, moment if current is None or moment < current else current)


def received_deadline(seconds: float | None) -> contextlib.AbstractContextManager[None]:
    """The scope of a request that its sender will await for so many seconds; the margin is taken off."""
    if seconds is None:
        return deadline_scope(None)
    least, most = MARGIN_BOUNDS
    margin = min(max(seconds * MARGIN_SHARE, least), most)
    return deadline_scope(max(0.0, seconds - margin))


def remaining(clock: Callable[[], float] = time.monotonic) -> float | None:
    """Seconds left until the deadline, never below 0; None without one."""
    at = deadline.get()
    return None if at is None else max(0.0, at - clock())
