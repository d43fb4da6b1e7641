"""A clock for the age of batches in the spool that adjustments of the system clock do not affect.

A gateway's clock jumps: it may have no battery, be corrected after the start, or be wrong for a moment. Ages are
therefore measured by the system's uptime, continued across restarts. Time while the system was off is unknown and is
not counted, so that a batch is kept too long rather than dropped too early.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aurum.storage.state_file import read_state, write_state

logger = logging.getLogger(__name__)

_MAX_US = 2**60  # µs; about 36,000 years
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Uptime:
    """The uptime of a system.

    Attributes:
        boot_id: Identifies the current boot; empty if unknown.
        microseconds: Returns the µs since the boot.
    """

    boot_id: str
    microseconds: Callable[[], int]


def system_uptime() -> Uptime:
    """Returns the uptime of this system. It includes time in suspend where the system provides that."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    boot_id = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""
    return Uptime(boot_id, lambda: time.clock_gettime_ns(clock) // 1000)


class SpoolClock:
    """A monotonic clock that starts near the time of day, so that its values are readable."""

    def __init__(self, path: Path, minimum_us: int, uptime: Uptime | None = None) -> None:
        """Continues from the saved state.

        Args:
            path: The file of the saved state.
            minimum_us: A time that has passed, in µs, such as that of the newest batch. The clock does not
                start before it.
            uptime: The uptime to measure by; by default the system's.
        """
        self._path = path
        self._uptime = uptime or system_uptime()
        self._started_us = self._uptime.microseconds()
        self._offset_us = max(minimum_us, self._restore())

    def now_us(self) -> int:
        """Returns the time in µs. It never decreases."""
        return self._offset_us + self._uptime.microseconds() - self._started_us

    def save(self) -> None:
        """Saves the current time. Raises OSError."""
        uptime_us = self._uptime.microseconds()
        content = {
            "now_us": self._offset_us + uptime_us - self._started_us,
            "uptime_us": uptime_us,
            "boot_id": self._uptime.boot_id,
        }
        write_state(self._path, content)

    def _restore(self) -> int:
        """Returns the current time in µs according to the saved state, or the time of day without one."""
        saved: Any = read_state(self._path)
        try:
            now_us, uptime_us, boot_id = int(saved["now_us"]), int(saved["uptime_us"]), saved["boot_id"]
        except (TypeError, KeyError, ValueError, OverflowError):
            return time.time_ns() // 1000  # the first start
        elapsed_us = self._started_us - uptime_us
        if not 0 <= now_us < _MAX_US or not 0 <= uptime_us < _MAX_US:  # this clock never writes such values
            return time.time_ns() // 1000
        if not boot_id or boot_id != self._uptime.boot_id or elapsed_us < 0:
            logger.info("the system was restarted; the ages in the spool continue from their last values")
            return now_us
        return now_us + elapsed_us
