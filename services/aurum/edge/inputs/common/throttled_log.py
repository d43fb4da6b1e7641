"""Rate-limited logging of problems with incoming data."""

import logging
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

_INTERVAL = 60.0  # seconds


class ThrottledLog:
    """Logs at most one warning a minute for one input, with the number of those left out."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._pending = 0
        self._logged_at = float("-inf")

    def warn(self, message: str) -> None:
        """Logs a warning, unless another one was logged within the last minute."""
        self._pending += 1
        if self._clock() - self._logged_at < _INTERVAL:
            return
        suffix = f" (and {self._pending - 1} more since the last one)" if self._pending > 1 else ""
        logger.warning("%s: %s%s", self._name, message, suffix)
        self._pending, self._logged_at = 0, self._clock()
