"""Detects alarm floods: more alarms than an operator can handle, ten in ten minutes by ISA-18.2 and EEMUA 191."""

import collections
from collections.abc import Callable

WINDOW_US = 600_000_000
BEGINS, ENDS = 10, 5  # alarms in the window
_REMEMBERED = 10_000


class FloodDetector:
    """Counts recent alarms. A flood starts above BEGINS alarms in the window and ends below ENDS.

    Attributes:
        since_us: The start of the present flood in µs since 1970; 0 if there is none.
    """

    def __init__(self) -> None:
        # Time in µs since 1970 and machine of each alarm
        self._raised: collections.deque[tuple[int, str]] = collections.deque(maxlen=_REMEMBERED)
        self.since_us = 0

    def record_alarm(self, at_us: int, machine_id: str = "") -> None:
        """Records that an alarm of a machine was raised at a time in µs since 1970."""
        self._raised.append((at_us, machine_id))

    def update(self, now_us: int) -> int:
        """Starts or ends the flood. Returns the number of alarms in the ten minutes before `now_us`."""
        recent = sum(1 for at, _ in self._raised if now_us - WINDOW_US < at <= now_us)
        if recent > BEGINS and not self.since_us:
            self.since_us = now_us
        elif recent < ENDS and self.since_us:
            self.since_us = 0
        return recent

    def count_selected(self, now_us: int, selects: Callable[[str], bool]) -> tuple[int, int]:
        """Counts the alarms of some machines in the last ten minutes.

        Args:
            now_us: The present time in µs since 1970.
            selects: Whether the alarms of a machine count, by its id.

        Returns:
            The number, and the time in µs since 1970 at which these alarms became a flood, or 0 if they are none.
        """
        recent = sorted(
            at for at, machine_id in self._raised if now_us - WINDOW_US < at <= now_us and selects(machine_id)
        )
        return len(recent), recent[BEGINS] if len(recent) > BEGINS else 0
