"""Limits the bytes of request bodies that the API holds in memory at once."""

from collections import Counter

from aurum.api import metrics
from aurum.runtime.errors import ResourceExhaustedError

_RETRY_AFTER = 1.0  # seconds


class BodyBudget:
    """A budget of bytes for all request bodies. One caller may use half of it.

    It is not thread-safe; use it from one event loop.

    Args:
        most: Bytes of all bodies together.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._of: Counter[str] = Counter()  # by caller

    def take(self, caller: str, nbytes: int) -> None:
        """Reserves bytes for a caller. Raises ResourceExhaustedError if the budget or the caller's part is exceeded."""
        if self._held + nbytes > self._most or self._of[caller] + nbytes > max(self._most // 2, nbytes):
            metrics.http_bodies_refused_total.inc()
            raise ResourceExhaustedError(
                f"the bodies of requests have {self._held} bytes at the moment, and {self._most} are allowed in all; "
                f"send again later, or smaller parts",
                reason="BODY_BUDGET",
                retry_after=_RETRY_AFTER,
            )
        self._held += nbytes
        self._of[caller] += nbytes
        metrics.http_body_bytes.set(self._held)

    def give_back(self, caller: str, nbytes: int) -> None:
        self._held -= nbytes
        self._of[caller] -= nbytes
        if not self._of[caller]:
            del self._of[caller]
        metrics.http_body_bytes.set(self._held)
