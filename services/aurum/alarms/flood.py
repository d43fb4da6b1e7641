"""Detects alarm floods: more alarms than an operator can handle, ten in ten minutes by ISA-18.2 and EEMUA 191."""

import collections
from collections.abc import Callable

WINDOW_US = 600_000_000
BEGINS, ENDS = 10, 5  # alarms in the window
_REMEMBERED = 10_000


class Flood:
    """Counts recent alarms. A flood starts above BEGINS alarms in the window and ends below ENDS."""

    def __init__(self) -> None:
        self._raised: collections.deque[tuple[int, str]] = collections.deque(
            maxlen=_REMEMBERED
        )  # time and machine of each alarm
        self.since_us = 0  # start of the flood; 0 if there is none

    def note(self, at_us: int, machine_id: str = "") -> None:
        """Records that an alarm was raised."""
        self._raised.append((at_us, machine_id))

    def look(self, now_us: int) -> int:
        """Returns the number of alarms in the last ten minutes, and starts or ends the flood accordingly."""
        recent = sum(1 for at, _ in self._raised if now_us - WINDOW_US < at <= now_us)
        if recent > BEGINS and not self.since_us:
            self.since_us = now_us
        elif recent < ENDS and self.since_us:
            self.since_us = 0
        return recent

    def part(self, now_us: int, wanted: Callable[[str], bool]) -> tuple[int, int]:
        """Returns the number of alarms of some machines in the last ten minutes, and since when they are a flood.

        Args:
            now_us: The present time in µs since 1970.
            wanted: Selects machines by their ids.

        Returns:
            The number, and when the alarms of these machines exceeded the limit, in µs since 1970, or 0.
        """
        recent = sorted(
            at for at, machine_id in self._raised if now_us - WINDOW_US < at <= now_us and wanted(machine_id)
        )
        return len(recent), recent[BEGINS] if len(recent) > BEGINS else 0
