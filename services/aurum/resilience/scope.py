"""Sets a context variable for the duration of a block."""

import contextlib
import contextvars
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class scoped(Generic[T]):  # noqa: N801 - used like a function; a generator would cost each call more
    """Sets the variable, and resets it at the end of the block."""

    __slots__ = ("_token", "_value", "_variable")

    def __init__(self, variable: contextvars.ContextVar[T], value: T) -> None:
        self._variable = variable
        self._value = value

    def __enter__(self) -> None:
        self._token = self._variable.set(self._value)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # An abandoned stream is closed in another context, where the variable need not be reset
        with contextlib.suppress(ValueError):
            self._variable.reset(self._token)
