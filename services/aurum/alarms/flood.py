"""A flood of alarms: more than an operator can look at (ISA-18.2 and EEMUA 191: ten in ten minutes)."""

import collections

WINDOW_US = 600_000_000
BEGINS, ENDS = 10, 5  # alarms in the window
_REMEMBERED = 10_000


class Flood:
    def __init__(self) -> None:
        self._raised: collections.deque[int] = collections.deque(maxlen=_REMEMBERED)
        self.since_us = 0  # 0 while there is none

    def note(self, at_us: int) -> None:
        """Takes note of an alarm that was raised."""
        self._raised.append(at_us)

    def look(self, now_us: int) -> int:
        """How many were raised in the last ten minutes; begins or ends the flood by that."""
        recent = sum(1 for at in self._raised if now_us - WINDOW_US < at <= now_us)
        if recent > BEGINS and not self.since_us:
            self.since_us = now_us
        elif recent < ENDS and self.since_us:
            self.since_us = 0
        return recent
