"""The source under which the API writes readings whose callers name none."""

import heapq
import time

_MOST_UNKNOWN = 1000  # sequences whose fate is not known, after which another source begins


class OwnSource:
    """Gives each write a sequence, and gives one that was not used again, so that few gaps are left. For one event
    loop."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.id = f"api-{time.time_ns() // 1000:x}"
        self._next = 1
        self._unused: list[int] = []
        self._unknown = 0

    def take(self) -> tuple[str, int]:
        """Source and sequence of the next write."""
        if self._unknown >= _MOST_UNKNOWN:
            self._begin()
        if self._unused:
            return self.id, heapq.heappop(self._unused)
        self._next += 1
        return self.id, self._next - 1

    def refused(self, source_id: str, sequence: int) -> None:
        """Notes that a write was certainly not stored."""
        if source_id == self.id:
            heapq.heappush(self._unused, sequence)

    def unknown(self, source_id: str) -> None:
        """Notes that nobody knows whether a write was stored."""
        self._unknown += source_id == self.id
