"""Detects alarm floods: more alarms than an operator can handle, ten in ten minutes by ISA-18.2 and EEMUA 191."""

import bisect
import collections
from collections.abc import Callable, Sequence

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
            The number, and the start of the flood of these machines in µs since 1970, or 0 if there is none.
        """
        raised = sorted(at for at, machine_id in self._raised if at <= now_us and wanted(machine_id))
        # The flood follows from the alarms alone: its count changes at each alarm, and when an alarm leaves the window
        oldest = newest = since_us = 0
        while newest < len(raised):
            at = raised[newest]
            oldest, since_us = _ended(raised, oldest, newest, at - 1, since_us)
            newest = bisect.bisect_right(raised, at, newest)
            oldest, since_us = _ended(raised, oldest, newest, at, since_us)
            if not since_us and newest - oldest > BEGINS:
                since_us = at
        oldest, since_us = _ended(raised, oldest, newest, now_us, since_us)
        return newest - oldest, since_us


def _ended(raised: Sequence[int], oldest: int, end: int, now_us: int, since_us: int) -> tuple[int, int]:
    """Lets alarms leave the window up to a time. Returns the first that is in it, and the start of the flood or 0.

    Args:
        raised: The times of all alarms, sorted.
        oldest: The index of the first alarm that was in the window before.
        end: The index after the last alarm that is counted.
        now_us: The time.
        since_us: The start of the flood before, or 0.
    """
    while oldest < end and raised[oldest] <= now_us - WINDOW_US:
        oldest += 1
        if end - oldest < ENDS:
            since_us = 0
    return oldest, since_us
