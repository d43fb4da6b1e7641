"""Limits the bytes of request bodies that the API holds in memory at once."""

from collections import Counter

from aurum.api import metrics
from aurum.runtime.errors import ResourceExhaustedError

_RETRY_AFTER = 1.0  # seconds


class BodyBudget:
    """A budget of bytes for all request bodies. One caller may use half of it.

    It is not thread-safe; use it from one event loop.

    Args:
        max_bytes: Bytes of all bodies together.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = 0
        self._held_by: Counter[str] = Counter()  # by caller

    def reserve(self, caller: str, nbytes: int) -> None:
        """Reserves bytes for a caller. Raises ResourceExhaustedError if the budget or the caller's part is exceeded."""
        if self._held + nbytes > self._max_bytes or self._held_by[caller] + nbytes > max(self._max_bytes // 2, nbytes):
            metrics.http_bodies_refused_total.inc()
            raise ResourceExhaustedError(
                f"request bodies hold {self._held} of {self._max_bytes} bytes (AURUM_API_BODY_BUDGET_BYTES); "
                f"retry later, or send smaller requests",
                reason="BODY_BUDGET",
                retry_after=_RETRY_AFTER,
            )
        self._held += nbytes
        self._held_by[caller] += nbytes
        metrics.http_body_bytes.set(self._held)

    def release(self, caller: str, nbytes: int) -> None:
        """Returns bytes that a caller had reserved."""
        self._held -= nbytes
        self._held_by[caller] -= nbytes
        if not self._held_by[caller]:
            del self._held_by[caller]
        metrics.http_body_bytes.set(self._held)
