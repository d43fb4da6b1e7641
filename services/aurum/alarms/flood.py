"""A flood of alarms: more than an operator can look at (ISA-18.2 and EEMUA 191: ten in ten minutes)."""

import collections
from collections.abc import Callable

WINDOW_US = 600_000_000
BEGINS, ENDS = 10, 5  # alarms in the window
_REMEMBERED = 10_000


class Flood:
    def __init__(self) -> None:
        self._raised: collections.deque[tuple[int, str]] = collections.deque(
            maxlen=_REMEMBERED
        )  # when, and which machine
        self.since_us = 0  # 0 while there is none

    def note(self, at_us: int, machine_id: str = "") -> None:
        """Takes note of an alarm that was raised."""
        self._raised.append((at_us, machine_id))

    def look(self, now_us: int) -> int:
        """How many were raised in the last ten minutes; begins or ends the flood by that."""
        recent = sum(1 for at, _ in self._raised if now_us - WINDOW_US < at <= now_us)
        if recent > BEGINS and not self.since_us:
            self.since_us = now_us
        elif recent < ENDS and self.since_us:
            self.since_us = 0
        return recent

    def part(self, now_us: int, wanted: Callable[[str], bool]) -> tuple[int, int]:
        """How many of them were of machines that are wanted; when there were so many that it is a flood of these alone,
        or 0."""
        recent = sorted(
            at for at, machine_id in self._raised if now_us - WINDOW_US < at <= now_us and wanted(machine_id)
        )
        return len(recent), recent[BEGINS] if len(recent) > BEGINS else 0
