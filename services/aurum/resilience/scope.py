"""A context variable that has a value for the time of a block."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")


@contextlib.contextmanager
def scoped(variable: contextvars.ContextVar[T], value: T) -> Iterator[None]:
    """Sets the variable, and sets it back at the end."""
    token = variable.set(value)
    try:
        yield
    finally:
        # A stream that is abandoned is closed in another context, where there is nothing to set back
        with contextlib.suppress(ValueError):
            variable.reset(token)
