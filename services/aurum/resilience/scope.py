"""Sets a context variable for the duration of a block."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")


@contextlib.contextmanager
def scoped(variable: contextvars.ContextVar[T], value: T) -> Iterator[None]:
    """Sets the variable, and resets it at the end of the block."""
    token = variable.set(value)
    try:
        yield
    finally:
        # An abandoned stream is closed in another context, where the variable need not be reset
        with contextlib.suppress(ValueError):
            variable.reset(token)
