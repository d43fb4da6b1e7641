"""A concurrency limit: so many calls at a time, the next ones are refused at once rather than queued without end."""

from collections.abc import Generator
from contextlib import contextmanager

from aurum.resilience import events


class LimitExceededError(Exception):
    """As many calls as allowed are in progress."""


class ConcurrencyLimit:
    """Admits at most `limit` calls at a time. For one event loop; not for use from several threads."""

    def __init__(self, name: str, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"concurrency limit {name}: must be at least 1, not {limit}")
        self.name = name
        self.limit = limit
        self.in_flight = 0
        events.emit("limit_change", name, str(limit))

    @contextmanager
    def slot(self) -> Generator[None]:
        """Takes a place for the block; raises LimitExceededError when there is none."""
        if self.in_flight >= self.limit:
            events.emit("limit_rejection", self.name)
            raise LimitExceededError(f"{self.name}: {self.limit} calls are in progress, which is the limit")
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1
