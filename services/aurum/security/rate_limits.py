"""Rate limits by token buckets, one for each identity or source, so that one caller cannot slow down the others."""

import collections
import time
from collections.abc import Callable


class RateLimits:
    """Token buckets by name.

    Args:
        rate: Tokens that each bucket gains per second.
        burst: Capacity of each bucket.
        kept: Number of buckets kept. The least recently used one is dropped, so its name starts with a full bucket.
        clock: Monotonic time in seconds.
    """

    def __init__(
        self, rate: float, burst: float, kept: int = 10_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._kept = kept
        self._clock = clock
        self._buckets: collections.OrderedDict[str, tuple[float, float]] = collections.OrderedDict()  # tokens, when

    def wait(self, who: str) -> float:
        """Returns the seconds until a bucket has a token. Takes none."""
        left, at = self._buckets.get(who, (self._burst, self._clock()))
        left = min(self._burst, left + (self._clock() - at) * self._rate)
        return max(0.0, (1.0 - left) / self._rate)

    def take(self, who: str, tokens: float = 1.0) -> float:
        """Takes tokens from a bucket.

        Returns:
            0 if there were enough, else the seconds until there will be. In that case none are taken.
        """
        now = self._clock()
        left, at = self._buckets.get(who, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._rate)
        wanted = min(tokens, self._burst)  # more than the capacity would never be available
        missing = wanted - left
        self._buckets[who] = (left if missing > 0 else left - wanted, now)
        self._buckets.move_to_end(who)
        if len(self._buckets) > self._kept:
            self._buckets.popitem(last=False)
        return missing / self._rate if missing > 0 else 0.0

    def __len__(self) -> int:
        return len(self._buckets)
