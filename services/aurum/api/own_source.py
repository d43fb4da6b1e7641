"""The source under which the API writes readings whose callers name no source."""

import heapq
import time

_MOST_UNKNOWN = 1000  # writes with unknown outcome, after which a new source is used


class OwnSource:
    """Assigns a source and a sequence to each write.

    Sequences of refused writes are assigned again, so that few gaps remain. It is not thread-safe; use it from one
    event loop.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.id = f"api-{time.time_ns() // 1000:x}"
        self._next = 1
        self._unused: list[int] = []
        self._unknown = 0

    def take(self) -> tuple[str, int]:
        """Returns the source and the sequence for the next write."""
        if self._unknown >= _MOST_UNKNOWN:
            self._begin()
        if self._unused:
            return self.id, heapq.heappop(self._unused)
        self._next += 1
        return self.id, self._next - 1

    def refused(self, source_id: str, sequence: int) -> None:
        """Records that a write was certainly not stored, so its sequence can be assigned again."""
        if source_id == self.id:
            heapq.heappush(self._unused, sequence)

    def unknown(self, source_id: str) -> None:
        """Records that it is unknown whether a write was stored."""
        self._unknown += source_id == self.id
