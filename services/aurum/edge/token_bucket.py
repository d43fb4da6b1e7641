"""A token bucket: limits the average rate and the burst."""

import asyncio
import time
from collections.abc import Callable


class TokenBucket:
    """A token bucket.

    Args:
        rate: Tokens that it gains per second.
        burst: Tokens that it holds at most.
        clock: A monotonic clock in seconds.
    """

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._tokens = burst
        self._at = clock()

    async def take(self, tokens: float) -> None:
        """Takes tokens. If there are too few, waits until the missing ones have been gained."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate) - tokens
        self._at = now
        if self._tokens < 0:
            await asyncio.sleep(-self._tokens / self._rate)
