"""A token bucket: limits the average rate and the burst."""

import asyncio
import time
from collections.abc import Callable


class TokenBucket:
    """A token bucket that gains `rate` tokens per second and holds at most `burst`."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._tokens = burst
        self._at = clock()

    async def take(self, tokens: float) -> None:
        """Takes tokens. If there are too few, takes them on credit and waits until they have been earned."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate) - tokens
        self._at = now
        if self._tokens < 0:
            await asyncio.sleep(-self._tokens / self._rate)
