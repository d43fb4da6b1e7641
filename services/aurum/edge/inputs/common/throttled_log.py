"""Rate-limited logging of problems with incoming data."""

import logging
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

_EVERY = 60.0  # seconds


class ThrottledLog:
    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._unsaid = 0
        self._said_at = float("-inf")

    def tell(self, sentence: str) -> None:
        self._unsaid += 1
        if self._clock() - self._said_at < _EVERY:
            return
        more = f" (and {self._unsaid - 1} others since the last line)" if self._unsaid > 1 else ""
        logger.warning("%s: %s%s", self._name, sentence, more)
        self._unsaid, self._said_at = 0, self._clock()
