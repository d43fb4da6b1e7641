"""The criticality of calls. It travels with a call, and less critical calls are refused first under overload."""

import contextlib
import contextvars
from enum import IntEnum

from aurum.resilience.scope import scoped


class Criticality(IntEnum):
    """The classes, the most important first. A call without a class is a query."""

    ALARM = 0
    TELEMETRY = 1
    QUERY = 2
    BATCH = 3

    @classmethod
    def parse(cls, name: str) -> "Criticality | None":
        """Returns the class of that name regardless of case, or None if there is none."""
        return cls.__members__.get(name.upper())


_current: contextvars.ContextVar[Criticality | None] = contextvars.ContextVar("aurum_criticality", default=None)


def criticality_scope(criticality: Criticality) -> contextlib.AbstractContextManager[None]:
    """Gives all work inside the block this class."""
    return scoped(_current, criticality)


def stated_criticality() -> Criticality | None:
    """The class that an enclosing scope states, or None."""
    return _current.get()


def current_criticality() -> Criticality:
    """The class of the current work."""
    stated = _current.get()
    return Criticality.QUERY if stated is None else stated
