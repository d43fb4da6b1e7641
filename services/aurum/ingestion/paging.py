"""Splits what is sent into messages of limited size."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

_OVERHEAD = 16  # bytes of an item in a message besides its own


def pages(items: Iterable[T], size_of: Callable[[T], int], max_bytes: int) -> Iterator[list[T]]:
    """Splits items into parts.

    Args:
        items: The items.
        size_of: Returns the bytes of an item.
        max_bytes: The bytes of a part, unless a single item has more.
    """
    part: list[T] = []
    size = 0
    for item in items:
        nbytes = size_of(item) + _OVERHEAD
        if part and size + nbytes > max_bytes:
            yield part
            part, size = [], 0
        part.append(item)
        size += nbytes
    if part:
        yield part
