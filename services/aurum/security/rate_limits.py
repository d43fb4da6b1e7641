"""Token buckets, one for each identity or source: who asks too much waits, and nobody else notices."""

import collections
import time
from collections.abc import Callable


class RateLimits:
    """rate: tokens a second. burst: tokens at most. kept: buckets; who has not asked longest is forgotten, and has a
    full bucket again."""

    def __init__(
        self, rate: float, burst: float, kept: int = 10_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._kept = kept
        self._clock = clock
        self._buckets: collections.OrderedDict[str, tuple[float, float]] = collections.OrderedDict()  # tokens, when

    def wait(self, who: str) -> float:
        """Seconds until there is a token for somebody; nothing is taken."""
        left, at = self._buckets.get(who, (self._burst, self._clock()))
        left = min(self._burst, left + (self._clock() - at) * self._rate)
        return max(0.0, (1.0 - left) / self._rate)

    def take(self, who: str, tokens: float = 1.0) -> float:
        """Takes tokens; 0 if there were enough, else the seconds after which there would be. Nothing is taken then."""
        now = self._clock()
        left, at = self._buckets.get(who, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._rate)
        wanted = min(tokens, self._burst)  # what is larger than a bucket would never get through
        missing = wanted - left
        self._buckets[who] = (left if missing > 0 else left - wanted, now)
        self._buckets.move_to_end(who)
        if len(self._buckets) > self._kept:
            self._buckets.popitem(last=False)
        return missing / self._rate if missing > 0 else 0.0

    def __len__(self) -> int:
        return len(self._buckets)
