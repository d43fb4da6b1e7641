"""How much a call matters, for what is refused first when there is too much to do. It travels with the call."""

import contextlib
import contextvars
from enum import IntEnum

from aurum.resilience.scope import scoped


class Criticality(IntEnum):
    """The classes, the most important first. Calls that name none are queries."""

    ALARM = 0
    TELEMETRY = 1
    QUERY = 2
    BATCH = 3

    @classmethod
    def parse(cls, name: str) -> "Criticality | None":
        """The class of that name, in any case; None if there is none."""
        return cls.__members__.get(name.upper())


_current: contextvars.ContextVar[Criticality | None] = contextvars.ContextVar("aurum_criticality", default=None)


def criticality_scope(criticality: Criticality) -> contextlib.AbstractContextManager[None]:
    """Everything inside is of this class."""
    return scoped(_current, criticality)


def stated_criticality() -> Criticality | None:
    """The class that a scope around states, if any."""
    return _current.get()


def current_criticality() -> Criticality:
    """The class of the current work."""
    stated = _current.get()
    return Criticality.QUERY if stated is None else stated
