"""Detects alarm floods: more alarms than an operator can handle, ten in ten minutes by ISA-18.2 and EEMUA 191."""

import bisect
import collections
from collections.abc import Callable, Sequence

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
            The number, and the start of the flood of these machines in µs since 1970, or 0 if there is none.
        """
        raised = sorted(at for at, machine_id in self._raised if at <= now_us and selects(machine_id))
        # The flood follows from the alarms alone: its count changes at each alarm, and when an alarm leaves the window
        first = end = since_us = 0
        while end < len(raised):
            at = raised[end]
            first, since_us = _advance_window(raised, first, end, at - 1, since_us)
            end = bisect.bisect_right(raised, at, end)
            first, since_us = _advance_window(raised, first, end, at, since_us)
            if not since_us and end - first > BEGINS:
                since_us = at
        first, since_us = _advance_window(raised, first, end, now_us, since_us)
        return end - first, since_us


def _advance_window(raised: Sequence[int], first: int, end: int, now_us: int, since_us: int) -> tuple[int, int]:
    """Removes alarms from the window that are too old at a time, and ends the flood if too few remain.

    Args:
        raised: The times of all alarms in µs since 1970, sorted.
        first: The index of the first alarm in the window.
        end: The index after the last alarm in the window.
        now_us: The time in µs since 1970.
        since_us: The start of the flood in µs since 1970, or 0 if there is none.

    Returns:
        The index of the first alarm that remains in the window, and the start of the flood or 0.
    """
    while first < end and raised[first] <= now_us - WINDOW_US:
        first += 1
        if end - first < ENDS:
            since_us = 0
    return first, since_us
