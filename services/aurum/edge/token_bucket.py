"""A token bucket: at most so much in a second on average, and so much at once."""

import asyncio
import time
from collections.abc import Callable


class TokenBucket:
    """rate: tokens that come in a second. burst: tokens that it holds at most."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._tokens = burst
        self._at = clock()

    async def take(self, tokens: float) -> None:
        """Takes tokens, on credit if there are too few, and then waits until they have come."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate) - tokens
        self._at = now
        if self._tokens < 0:
            await asyncio.sleep(-self._tokens / self._rate)
