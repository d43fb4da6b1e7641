"""How old a batch of the spool is, by a clock that nobody sets.

A gateway's clock jumps: it may have no battery, be put right after its start, or be wrong for a moment. Ages are
therefore counted by the system's own uptime, on from restart to restart. Time for which the system was off is not known
and is not counted: a batch is kept too long rather than given up while it is fresh.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aurum.storage.state_file import read_state, write_state

logger = logging.getLogger(__name__)

_MOST = 2**60  # µs: 36,000 years
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Uptime:
    """boot_id: the same while the system is up; empty if it is not known. microseconds: since it was started."""

    boot_id: str
    microseconds: Callable[[], int]


def system_uptime() -> Uptime:
    """Of this system, with the time for which it was suspended where that can be known."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    boot_id = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""
    return Uptime(boot_id, lambda: time.clock_gettime_ns(clock) // 1000)


class SpoolClock:
    """Begins at about the time of day, so that what it tells can be read, and then only goes on."""

    def __init__(self, path: Path, least_us: int, uptime: Uptime | None = None) -> None:
        """path: where it is written down. least_us: a time that is over, such as that of the newest batch."""
        self._path = path
        self._uptime = uptime or system_uptime()
        self._started = self._uptime.microseconds()
        self._base = max(least_us, self._last())

    def now_us(self) -> int:
        """Microseconds; never less than before."""
        return self._base + self._uptime.microseconds() - self._started

    def save(self) -> None:
        """Writes down what it is. Raises OSError."""
        at = self._uptime.microseconds()
        content = {"now_us": self._base + at - self._started, "uptime_us": at, "boot_id": self._uptime.boot_id}
        write_state(self._path, content)

    def _last(self) -> int:
        """What it is now, as far as it was written down."""
        stored: Any = read_state(self._path)
        try:
            now_us, uptime_us, boot_id = int(stored["now_us"]), int(stored["uptime_us"]), stored["boot_id"]
        except (TypeError, KeyError, ValueError, OverflowError):
            return time.time_ns() // 1000  # the first start
        since = self._started - uptime_us
        if not 0 <= now_us < _MOST or not 0 <= uptime_us < _MOST:  # which this clock never tells
            return time.time_ns() // 1000
        if not boot_id or boot_id != self._uptime.boot_id or since < 0:
            logger.info("the system was started anew; ages in the spool go on from where they were")
            return now_us
        return now_us + since
