"""The source under which the API writes readings whose callers name no source."""

import heapq

from aurum.readings.batch import new_source_id

_MAX_UNKNOWN = 1000  # writes with unknown outcome, after which a new source is used


class OwnSource:
    """Assigns a source and a sequence to each write.

    Sequences of refused writes are assigned again, so that few gaps remain. It is not thread-safe; use it from one
    event loop.
    """

    def __init__(self) -> None:
        self._start_source()

    def _start_source(self) -> None:
        self.id = new_source_id("api")
        self._next = 1
        self._unused: list[int] = []
        self._unknown_writes = 0

    def next_batch(self) -> tuple[str, int]:
        """Returns the source and the sequence for the next write."""
        if self._unknown_writes >= _MAX_UNKNOWN:
            self._start_source()
        if self._unused:
            return self.id, heapq.heappop(self._unused)
        self._next += 1
        return self.id, self._next - 1

    def record_refused(self, source_id: str, sequence: int) -> None:
        """Records that a write was certainly not stored, so its sequence can be assigned again."""
        if source_id == self.id:
            heapq.heappush(self._unused, sequence)

    def record_unknown(self, source_id: str) -> None:
        """Records that it is unknown whether a write was stored."""
        self._unknown_writes += source_id == self.id
